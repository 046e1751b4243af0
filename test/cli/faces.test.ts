// timeout: 300 s
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { picture, temporaryFolder } from '../restore/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli data faces');
const folder = temporaryFolder();
const samples = fileURLToPath(new URL('../../samples', import.meta.url));
const faces = (...args: string[]) => refl(['data', 'faces', ...args, '--threads', '1']);

test('the faces of the sample photographs, people apart; what shows no face or is no picture costs a line', async () => {
  const mixed = join(folder, 'mixed');
  await mkdir(mixed);
  await writeFile(join(mixed, 'broken.jpg'), 'no image');
  await picture(80, 80).png().toFile(join(mixed, 'wall.png'));
  const out = join(folder, 'set');
  const outcome = await faces(
    samples,
    mixed,
    '-o',
    out,
    '--heldout',
    'group',
    '--share',
    '0',
    '--morphs',
    '1',
    '--json',
  );
  assert.is(outcome.code, 1, 'one file could not be read');
  const [failed, record] = outcome.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.is(failed.error.code, 'ERR_IMAGE');
  assert.is(record.output, join(out, 'manifest.json'));
  assert.equal([record.faces, record.morphs], [8, 1]);
  const lines = errorLines(outcome);
  assert.is(lines.length, 2, outcome.stderr);
  assert.match(outcome.stderr, /broken\.jpg: it is no image.*\n.*wall\.png: no face was found\n/);

  // One of the four women of the group is portrait-1's too.
  const held = await readdir(join(out, 'heldout'));
  assert.ok(['group_0', 'group_1', 'group_2', 'group_3', 'portrait-1_0'].every((id) => held.includes(`${id}.png`)));
  assert.ok((await readdir(join(out, 'train320'))).includes('astronaut_0.png'));
  const manifest = JSON.parse(await readFile(record.output, 'utf8'));
  assert.equal(manifest.options.heldOut, ['group']);
  assert.equal(manifest.faces.length, record.train + record.heldout);
});

test('a folder with files in it, and options that make no sense, are refused', async () => {
  const cases: [string[], RegExp][] = [
    [['-o', samples], /there are files in this folder/],
    [['-o', join(folder, 'a'), '--size', '100'], /size must be a multiple of 8/],
    [['-o', join(folder, 'a'), '--share', '1.5'], /share must be from 0 to 1/],
    [['-o', join(folder, 'a'), '--morphs', '-1'], /morphs must be/],
    [['-o', join(folder, 'a'), '--enlarge', '0'], /enlarge must be/],
    [['-o', join(folder, 'a'), '--seed', 'x'], /seed must be/],
    [
      ['-o', join(folder, 'a'), '--heldout', 'nobody', '--share', '0'],
      /no face is named nobody: there are astronaut_0/,
    ],
  ];
  for (const [args, why] of cases) {
    const outcome = await faces(join(samples, 'astronaut.jpg'), ...args);
    assert.is(outcome.code, 2, args.join(' '));
    assert.is(errorLines(outcome).length, 1, outcome.stderr);
    assert.match(outcome.stderr, why);
  }
  assert.equal(await readdir(join(folder, 'a')), []);
  assert.is((await readdir(folder)).filter((name) => name.endsWith('.tmp')).length, 0);
});

test.run();
