import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { temporaryFolder } from '../restore/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli demo');
const folder = temporaryFolder();

test('what makes no sense ends with one line', async () => {
  const file = join(folder, 'file');
  await writeFile(file, '');
  const cases: [string[], number, RegExp][] = [
    [['demo'], 2, /a command is missing/],
    [['demo', 'frm', '-o', file], 1, /file: cannot make the folder/],
    [['demo', 'frm', '-o', join(folder, 'out'), '--device', 'nothing'], 2, /nothing/],
  ];
  for (const [args, code, message] of cases) {
    const outcome = await refl(args);
    assert.is(outcome.code, code, outcome.stderr);
    assert.is(errorLines(outcome).length, 1, outcome.stderr);
    assert.match(outcome.stderr, message);
  }
});

test.run();
