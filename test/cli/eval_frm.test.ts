// timeout: 300 s
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RewardModel } from '../../lib/reward/model.ts';
import { readLabels } from '../../lib/train/labels.ts';
import { temporaryFolder } from '../restore/support.ts';
import { writeTinyClip } from '../reward/support.ts';
import { tinyOptions, writeLightFaces } from '../train/faces.ts';
import { lines } from '../train/preference.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli eval frm');
const folder = temporaryFolder();
const path = await writeLightFaces(folder);
const { from, tokenizer } = await tinyOptions(folder);
const other = await writeTinyClip(join(folder, 'other.safetensors'), (_, values) => values.map((v) => v * 0.9));
const { value: labels } = await readLabels(path);
const held = labels.filter(({ split }) => split === 'heldout');
const choices = join(folder, 'choices.jsonl');
writeFileSync(choices, lines(held.map(({ pair, share }) => ({ pair, annotator: 'ann', choice: share ? 'a' : 'b' }))));
const common = ['--choices', choices, '--tokenizer', tokenizer, '--device', 'cpu', '--threads', '1'];
const evaluate = (...args: string[]) => refl(['eval', 'frm', path, ...common, ...args]);

test("models are held against people's choices with the scores that the library gives", async () => {
  const outcome = await evaluate('--models', `first=${from}`, other, '--batch', '5', '--json');
  assert.is(outcome.code, 0, outcome.stderr);
  const report = JSON.parse(outcome.stdout);
  assert.equal([report.pairs, report.decided, report.people], [24, 24, 4]);
  const [svm, first, second] = report.judges;
  assert.equal([svm.name, first.name, second.name], ['svm', 'first', 'other']);
  assert.is(svm.all.correct, 24);
  using model = await RewardModel.load({ weights: from as string, tokenizer, device: 'cpu', threads: 1 });
  const captions = held.map(({ caption }) => caption!);
  const [a, b] = [
    await model.score(
      held.map((l) => l.a),
      captions,
    ),
    await model.score(
      held.map((l) => l.b),
      captions,
    ),
  ];
  assert.is(first.all.correct, held.filter(({ share }, i) => a[i].score > b[i].score === share > 0.5).length);
  assert.equal(first.annotators[0].share, first.all);
  assert.is(
    first.quarters.reduce((sum: number, { count }: { count: number }) => sum + count, 0),
    24,
  );
});

test('the report is for reading without --json', async () => {
  const html = join(folder, 'report.html');
  const { code, stdout } = await evaluate('--models', other, '--html', html);
  assert.is(code, 0);
  assert.match(readFileSync(html, 'utf8'), /^<!doctype html>[\s\S]*<td>other<td>[\s\S]*<\/html>\n$/);
  assert.match(stdout, /^24 pairs of 4 held-out people, 24 of them decided\nA was chosen in \d/);
  assert.match(stdout, /as people decided:\n {2}svm {4}100\.00% of 24 \(95%: .*\n {2}other {2}\d+\.\d+% of 24/);
  assert.match(stdout, /as ann chose:\n/);
  assert.match(stdout, /where they and the svm differ \(0 pairs\):\n {2}other {2}of none$/m);
});

test('what makes no sense ends with one line', async () => {
  const mute = join(folder, 'mute.jsonl');
  writeFileSync(mute, readFileSync(path, 'utf8').replaceAll(/"caption":"[^"]*",/g, ''));
  const cases: [string, string[], number, RegExp][] = [
    [path, ['--models', other, other], 2, /two judges are named other/],
    [path, ['--models', `svm=${other}`], 2, /two judges are named svm/],
    [mute, ['--models', other], 1, /has no caption/],
    [path, ['--models', join(folder, 'gone.safetensors')], 1, /gone\.safetensors/],
  ];
  for (const [file, args, code, message] of cases) {
    const outcome = await refl(['eval', 'frm', file, ...common, ...args]);
    assert.is(outcome.code, code, outcome.stderr);
    assert.is(errorLines(outcome).length, 1);
    assert.match(outcome.stderr, message);
  }
});

test.run();
