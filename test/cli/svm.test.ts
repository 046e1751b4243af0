// timeout: 300 s
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readLabels } from '../../lib/train/labels.ts';
import { temporaryFolder } from '../restore/support.ts';
import { lines, world, writeWorld } from '../train/preference.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli train svm, label');
const folder = temporaryFolder();
const made = world(40, { labelled: 4 });
made.choices.push({ pair: 'p0-01', annotator: 'bob', choice: 'tie' });
const files = await writeWorld(folder, made);
const model = join(folder, 'svm.json');
const data = ['--choices', files.choices, '--metrics', files.metrics];

test('a classifier is trained on choices, and labels all pairs but for what people said', async () => {
  const trained = await refl(['train', 'svm', files.pairs, ...data, '-o', model, '--costs', '10', '--json']);
  assert.is(trained.code, 0, trained.stderr);
  const report = JSON.parse(trained.stdout);
  assert.equal([report.people, report.pairs, report.heldOut.people], [40, 160, 4]);
  assert.ok(report.heldOut.share > 0.7 && report.heldOut.low < report.heldOut.high);
  assert.is(report.metrics[0].name, 'sharpness');

  const out = join(folder, 'labels', 'labels.jsonl');
  assert.is(
    (await refl(['label', files.pairs, ...data, '--svm', model, '-o', out])).code,
    1,
    'its folder is not there',
  );
  const there = join(folder, 'labels.jsonl');
  const labelled = await refl(['label', files.pairs, ...data, '--svm', model, '-o', there, '--json']);
  assert.is(labelled.code, 0, labelled.stderr);
  assert.equal(JSON.parse(labelled.stdout), { output: there, pairs: 240, people: 160, svm: 80, heldOut: 24 });
  const { value: labels } = await readLabels(there);
  const said = new Map(made.choices.map(({ pair, choice }) => [pair, choice]));
  const by = (pair: string) => labels.find((label) => label.pair === pair)!;
  assert.is(by('p1-01').share, said.get('p1-01') === 'a' ? 1 : 0);
  assert.is(by('p0-01').share, made.choices[0].choice === 'a' ? 0.75 : 0.25);
  const guessed = labels.filter(({ source }) => source === 'svm');
  assert.ok(guessed.every(({ share, margin }) => share > 0 && share < 1 && share > 0.5 === margin > 0));

  const hard = await refl(['label', files.pairs, ...data, '--svm', model, '-o', there, '--hard']);
  assert.is(hard.code, 0, hard.stderr);
  assert.ok(
    (await readLabels(there)).value.every((label) => label.source === 'people' || [0, 1].includes(label.share)),
  );
});

test('pairs of pictures without metrics are left out and said, but for what people said of them', async () => {
  const fewer = join(folder, 'fewer.jsonl');
  // Without the first and the last picture: of three pairs each, which were all and partly judged.
  writeFileSync(fewer, `${readFileSync(files.metrics, 'utf8').trim().split('\n').slice(1, -1).join('\n')}\n`);
  const args = [files.pairs, '--choices', files.choices, '--metrics', fewer];
  const trained = await refl(['train', 'svm', ...args, '-o', join(folder, 'fewer.json'), '--costs', '10', '--json']);
  assert.is(trained.code, 0, trained.stderr);
  assert.match(errorLines(trained)[0], /fewer\.jsonl lacks pictures of 4 pairs, which are left out/);
  assert.is(JSON.parse(trained.stdout).pairs, 156);
  const out = join(folder, 'fewer-labels.jsonl');
  const labelled = await refl(['label', ...args, '--svm', model, '-o', out, '--json']);
  assert.match(errorLines(labelled)[0], /lacks pictures of 2 pairs, which are left out/);
  assert.equal(JSON.parse(labelled.stdout).people, 160);
  const { value: labels } = await readLabels(out);
  const { share, source, margin } = labels.find(({ pair }) => pair === 'p0-02')!;
  const { choice } = made.choices.find(({ pair }) => pair === 'p0-02')!;
  assert.equal([share, source, margin], [choice === 'a' ? 1 : 0, 'people', 0]);
});

test('the report is for reading without --json', async () => {
  const { code, stdout } = await refl([
    'train',
    'svm',
    files.pairs,
    ...data,
    '-o',
    model,
    '--costs',
    '10',
    '--gammas',
    '0.1',
  ]);
  assert.is(code, 0);
  assert.match(stdout, /^160 pairs of 40 people, 160 of them decided\ncost 10, gamma 0\.1: \d+ support vectors\n/);
  assert.match(stdout, /right on 4 people held out: \d+\.\d+% of 16 \(95%: .*\n/);
  assert.match(stdout, /\n {2}sharpness +\d+\.\d+% {3}alone, higher is better: /);
});

test('data that make no sense end with one line', async () => {
  const bad = (name: string, text: string): string => {
    writeFileSync(join(folder, name), text);
    return join(folder, name);
  };
  const contradiction = bad(
    'contra.jsonl',
    lines([...made.choices, { pair: 'p1-01', annotator: 'ann', choice: 'tie' }]),
  );
  const alike = bad('alike.jsonl', lines(made.choices.map((choice) => ({ ...choice, choice: 'a' }))));
  const cases: [string[], number, RegExp][] = [
    [['--choices', contradiction, '--metrics', files.metrics], 1, /ann chose [ab] for p1-01 .* "undo"/],
    [['--choices', alike, '--metrics', files.metrics], 2, /all 160 decided pairs go to A/],
    [[...data, '--folds', '60'], 2, /60 folds need as many people/],
    [[...data, '--costs', '0'], 2, /cost must be above 0/],
    [[...data, '--holdout', '1'], 2, /holdout must be/],
  ];
  for (const [args, code, message] of cases) {
    const outcome = await refl(['train', 'svm', files.pairs, ...args, '-o', join(folder, 'other.json')]);
    assert.is(outcome.code, code, outcome.stderr);
    assert.is(errorLines(outcome).length, 1);
    assert.match(outcome.stderr, message);
  }
  const damaged = bad('damaged.json', readFileSync(model, 'utf8').slice(0, -100));
  const outcome = await refl(['label', files.pairs, ...data, '--svm', damaged, '-o', join(folder, 'l.jsonl')]);
  assert.is(outcome.code, 1);
  assert.match(outcome.stderr, /damaged\.json holds no preference classifier/);
});

test.run();
