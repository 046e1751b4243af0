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
    [['demo', 'refl', '--steps', '3'], 2, /Unknown argument: steps/],
    [['experiment'], 2, /a command is missing/],
    [['experiment', 'hacking', '-o', file, '--lpips', 'vgg16.pth', 'vgg.pth'], 1, /file: cannot make the folder/],
    [['experiment', 'interval', '-o', join(folder, 'out'), '--device', 'nothing'], 2, /nothing/],
  ];
  for (const [args, code, message] of cases) {
    const outcome = await refl(args);
    assert.is(outcome.code, code, outcome.stderr);
    assert.is(errorLines(outcome).length, 1, outcome.stderr);
    assert.match(outcome.stderr, message);
  }
});

test('--help says what each experiment is', async () => {
  const { stdout } = await refl(['experiment', '--help']);
  for (const name of ['hacking', 'ablation', 'interval']) assert.match(stdout, new RegExp(`experiment ${name} `));
});

test.run();
