// timeout: 300 s
import { readdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { temporaryFolder } from '../restore/support.ts';
import { tinyClip } from '../reward/support.ts';
import { tinyOptions, writeLightFaces } from '../train/faces.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli train frm');
const folder = temporaryFolder();
const labels = await writeLightFaces(folder);
const { from, tokenizer } = await tinyOptions(folder);
const model = join(folder, 'tiny.json');
await writeFile(model, JSON.stringify(tinyClip));
const common = ['--tokenizer', tokenizer, '--threads', '1', '--device', 'cpu', '--batch', '6', '--warmup', '2'];
const start = ['--weights', from as string, '--image-groups', '2', '--text-layers', '1'];

const train = (args: string[], onOutput?: (kill: (signal: NodeJS.Signals) => void) => void) =>
  refl(['train', 'frm', labels, ...common, ...args], onOutput);

test('Ctrl-C ends training after its step, and the same command goes on from there to a reward model', async () => {
  const out = join(folder, 'run');
  const args = [...start, '-o', out, '--steps', '30', '--lr', '0.01', '--eval-every', '15', '--json'];
  const first = await train(args, (kill) => kill('SIGINT'));
  assert.is(first.code, 130, first.stderr);
  const second = await train(args);
  assert.is(second.code, 0, second.stderr);
  assert.match(second.stderr, /72 pairs to train on, 24 of held-out people; going on from step \d+\n/);
  const records = second.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const { best, last } = records.pop();
  assert.equal([last.step, records.filter(({ heldOut }) => heldOut).length > 0], [30, true]);
  assert.ok(records.every(({ heldOut, memory }) => heldOut || memory > 1e6));
  assert.ok((await readdir(out)).some((name) => name.includes('tfevents')));
  const picture = join(folder, 'faces', '0-0.png');
  const scored = await refl(['score', picture, '--weights', best.path, '--tokenizer', tokenizer, '--caption', 'low']);
  assert.is(scored.code, 0, scored.stderr);

  const other = await train([...start, '-o', out, '--steps', '31', '--lr', '0.01', '--eval-every', '15']);
  assert.is(other.code, 1);
  assert.match(other.stderr, /was trained with/);
});

test('without --json lines are for reading; a model may be drawn anew', async () => {
  const { code, stdout, stderr } = await train(['--model', model, '-o', join(folder, 'anew'), '--steps', '4']);
  assert.is(code, 0, stderr);
  assert.match(
    stderr,
    /step 4\/4 {2}loss \d\.\d{4} {2}right \d+\.\d\d% {2}\d\.\d GB {2}\d+\.\d\d s\/step {2}0:00 left\n/,
  );
  assert.match(stderr, /step 4 {2}right on held-out people \d+\.\d\d% of 24 \(95%: .*\), the best so far\n/);
  assert.match(stdout, /anew\/best\.safetensors\n.*anew\/last\.safetensors\n$/);
});

test('options and files that make no sense end with one line', async () => {
  await writeFile(join(folder, 'bad.json'), '{"embed_dim": 6');
  const out = ['-o', join(folder, 'other'), '--steps', '2'];
  const cases: [string[], number, RegExp][] = [
    [out, 2, /give --weights or --model/],
    [[...out, '--model', join(folder, 'bad.json')], 2, /bad\.json: it is not JSON/],
    [[...out, ...start, '--steps', '0'], 2, /steps/],
    [[...out, ...start, '--accumulate', '0'], 2, /accumulate must be a whole number of at least 1/],
    [[...out, ...start, '--lr', '0'], 2, /lr must be above 0/],
    [[...out, '--weights', from as string, '--image-groups', '9'], 2, /imageGroups must be/],
    [[...out, ...start, '--only-people'], 1, /no pair to train on is decided/],
  ];
  for (const [args, code, message] of cases) {
    const outcome = await train(args);
    assert.is(outcome.code, code, `${args.join(' ')}: ${outcome.stderr}`);
    assert.is(errorLines(outcome).length, 1, outcome.stderr);
    assert.match(outcome.stderr, message);
  }
});

test.run();
