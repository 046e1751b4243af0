import { appendFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { MetricSet } from '../../lib/eval/metric_set.ts';
import { decodeImage } from '../../lib/image/picture.ts';
import { picture, temporaryFolder } from '../restore/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli metrics');
const folder = temporaryFolder();
const [pictures, references, faces] = ['pictures', 'references', 'faces'].map((name) => join(folder, name));
for (const path of [pictures, references, faces, join(faces, 'a')]) await mkdir(path);
const [a, b] = ['a.png', 'b.png'].map((name) => join(pictures, name));
await picture(200, 200).png().toFile(a);
await picture(200, 220).png().toFile(b);
await picture(200, 200).blur(2).png().toFile(join(references, 'a.png'));
await picture(200, 220).blur(2).png().toFile(join(references, 'b.png'));
await picture(200, 200)
  .blur(1)
  .png()
  .toFile(join(faces, 'a', '0.png'));

const simple = ['--only', 'psnr', 'sharpness', '--device', 'cpu'];
const metrics = (...args: string[]) => refl(['metrics', ...args]);
const parse = (text: string) =>
  text
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));

test('values are those of the library, with the set they are of', async () => {
  using set = await MetricSet.load({ paired: true, only: ['psnr', 'sharpness'], device: 'cpu' });
  const expected = await set.measure(await decodeImage(a), await decodeImage(join(references, 'a.png')));
  const outcome = await metrics(pictures, '--reference', references, '--json', ...simple);
  assert.is(outcome.code, 0, outcome.stderr);
  const [first, second, summary] = parse(outcome.stdout);
  assert.equal(first, { input: a, metrics: expected, set: 'default' });
  assert.is(second.input, b);
  const mean = (name: string): number => (first.metrics[name] + second.metrics[name]) / 2;
  assert.equal(summary, { set: 'default', pictures: 2, means: { psnr: mean('psnr'), sharpness: mean('sharpness') } });
  const lines = (await metrics(a, '--reference', join(references, 'a.png'), ...simple)).stdout.trim().split('\n');
  assert.is(lines[0], `psnr ${expected.psnr.toPrecision(4)}  sharpness ${expected.sharpness.toPrecision(4)}  ${a}`);
  assert.match(lines[1], /mean of 1, default set$/);
});

test('a reference may have the name of the folder that a picture lies in', async () => {
  const outcome = await metrics(join(faces, 'a'), '--reference', references, '--json', ...simple);
  assert.is(outcome.code, 0, outcome.stderr);
  assert.ok(parse(outcome.stdout)[0].metrics.psnr > 20);
});

test('a file of results grows, and has each picture once', async () => {
  const out = join(folder, 'metrics.jsonl');
  const args = ['--reference', references, '-o', out, ...simple];
  assert.is((await metrics(a, ...args)).code, 0);
  const before = await readFile(out, 'utf8');
  // As after a crash in the middle of the next line.
  await appendFile(out, '{"image":"pict');
  const outcome = await metrics(pictures, '--json', ...args);
  assert.is(outcome.code, 0, outcome.stderr);
  const [second, summary] = parse(outcome.stdout);
  assert.is(second.input, b);
  assert.is(summary.pictures, 2);
  assert.equal(errorLines(outcome), [`refl-native: 1 of the pictures are in ${out} already`]);
  const after = await readFile(out, 'utf8');
  assert.ok(after.startsWith(before));
  assert.equal(
    parse(after).map(({ image }) => image),
    ['pictures/a.png', 'pictures/b.png'],
  );
  const other = await metrics(pictures, '-o', out, '--only', 'noise');
  assert.is(other.code, 2);
  assert.match(errorLines(other)[0], /line 1: it is not of the default metrics noise: give another file/);
  assert.is(await readFile(out, 'utf8'), after);
});

test('pictures that cannot be measured cost one line each, and are in no results', async () => {
  const bad = join(folder, 'bad.png');
  await writeFile(bad, 'no picture');
  const out = join(folder, 'partial.jsonl');
  const lonely = join(folder, 'lonely.png');
  await picture(200, 200).png().toFile(lonely);
  const outcome = await metrics(a, bad, lonely, '--reference', references, '-o', out, ...simple);
  assert.is(outcome.code, 1);
  const errors = errorLines(outcome);
  assert.is(errors.length, 2);
  assert.match(errors[0], /bad\.png: it is no image/);
  assert.match(errors[1], /lonely\.png: .*references holds no reference named lonely or /);
  assert.is(parse(await readFile(out, 'utf8')).length, 1);
});

test('wrong usage ends with 2 and one line', async () => {
  await mkdir(join(folder, 'twice'));
  for (const name of ['a.png', 'a.jpg']) await picture(32, 32).toFile(join(folder, 'twice', name));
  for (const [args, why] of [
    [[a, '--only', 'lpips'], /unknown metric lpips/],
    [[a, '--only', 'psnr'], /psnr needs references/],
    [[a, '--reference', join(folder, 'twice')], /could both be the reference of a/],
    [[a, '--weights', pictures], /holds the files of no metric/],
  ] as const) {
    const outcome = await metrics(...args);
    assert.is(outcome.code, 2, outcome.stderr);
    assert.equal(errorLines(outcome).length, 1);
    assert.match(outcome.stderr, why);
  }
});

test.run();
