// timeout: 300 s
import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Restorer } from '../../lib/index.ts';
import { picture, temporaryFolder } from '../restore/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli train base');
const folder = temporaryFolder();
const pictures = join(folder, 'pictures');
await mkdir(pictures);
await picture(300, 280).png().toFile(join(pictures, 'a.png'));

const train = (args: string[], onOutput?: (kill: (signal: NodeJS.Signals) => void) => void) =>
  refl(['train', 'base', '--threads', '1', '--batch', '1', '-o', join(folder, 'run'), ...args], onOutput);

test('Ctrl-C ends training after its step, and the same command goes on from there', async () => {
  const args = [`${pictures}=2`, '--steps', '4', '--json'];
  const first = await train(args, (kill) => kill('SIGINT'));
  assert.is(first.code, 130, first.stderr);
  const steps = first.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal([steps[0].step, steps[0].steps], [1, 4]);
  assert.ok(steps.length < 4 && Number.isFinite(steps[0].loss));

  const second = await train(args);
  assert.is(second.code, 0, second.stderr);
  assert.match(second.stderr, new RegExp(`going on from step ${steps.length}\\n`));
  const rest = second.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(
    rest.slice(0, -1).map(({ step }) => step),
    [1, 2, 3, 4].slice(steps.length),
  );
  const { output } = rest.at(-1);
  assert.not.ok((await readdir(join(folder, 'run'))).some((name) => name.endsWith('.tmp')));
  using restorer = await Restorer.load({ model: output, device: 'cpu', threads: 1 });
  assert.is((await restorer.restore(picture(256, 256), { aligned: true })).figures.faces, 1);
});

test('a run cannot be continued with other options', async () => {
  const outcome = await train([pictures, '--steps', '5']);
  assert.is(outcome.code, 1);
  assert.is(errorLines(outcome).length, 1);
  assert.match(outcome.stderr, /was trained with/);
});

test('numbers and folders that make no sense are refused', async () => {
  const cases: [string[], number][] = [
    [[pictures, '--steps', '0'], 2],
    [[pictures, '--batch', 'x'], 2],
    [[pictures, '--lr', '-1'], 2],
    [[join(folder, 'nowhere')], 1],
  ];
  for (const [args, code] of cases) {
    const outcome = await train(args);
    assert.is(outcome.code, code, args.join(' '));
    assert.is(errorLines(outcome).length, 1, outcome.stderr);
  }
});

test.run();
