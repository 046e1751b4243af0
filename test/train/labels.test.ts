import { writeFileSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type Label, readLabels, writeLabels } from '../../lib/train/labels.ts';
import { temporaryFolder } from '../restore/support.ts';

const test = suite('labels');

test('labels come back as they were written, with all pictures named from their own file', async () => {
  const folder = temporaryFolder();
  await mkdir(join(folder, 'labels'));
  const [a, b] = ['a.png', 'b.png'].map((name) => join(folder, name));
  for (const path of [a, b]) writeFileSync(path, 'a picture');
  // Nobody needs the input any more.
  const input = join(folder, 'gone', 'input.png');
  const label = { person: 'p', a, b, share: 1, source: 'people', margin: 0.5, split: 'train' } as const;
  const labels: Label[] = [
    { pair: 'x', ...label, input, caption: 'a face' },
    { pair: 'y', ...label },
  ];
  const path = join(folder, 'labels', 'labels.jsonl');
  await writeLabels(path, labels);
  assert.equal((await readLabels(path)).value, labels);
  const text = await readFile(path, 'utf8');
  assert.match(text, /"a":"\.\.\/a\.png","b":"\.\.\/b\.png".*"input":"\.\.\/gone\/input\.png"/);
  assert.not.match(text, new RegExp(folder));
});

test.run();
