import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RewardModel } from '../../lib/reward/model.ts';
import { picture, temporaryFolder } from '../restore/support.ts';
import { writeTinyClip, writeTokenizer } from '../reward/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli score');
const folder = temporaryFolder();
const tokenizer = writeTokenizer(folder);
const weights = await writeTinyClip(join(folder, 'clip.safetensors'));
const pictures = join(folder, 'pictures');
await mkdir(pictures);
const [a, b] = ['a.png', 'b.png'].map((name) => join(pictures, name));
await picture(20, 12).png().toFile(a);
await picture(16, 16).png().toFile(b);

const score = (...args: string[]) =>
  refl(['score', '--weights', weights, '--tokenizer', tokenizer, '--device', 'cpu', ...args]);

test('scores are those of the library, a line each or as JSON', async () => {
  using model = await RewardModel.load({ weights, tokenizer, device: 'cpu' });
  const expected = (await model.score([a, b], ['lower face'])).map((result) => result.score);
  const lines = await score(pictures, '--caption', 'lower face');
  assert.is(lines.code, 0, lines.stderr);
  assert.is(lines.stdout, `${expected[0].toFixed(4)}  ${a}\n${expected[1].toFixed(4)}  ${b}\n`);
  const json = await score(b, '--caption', 'lower face', '--json');
  assert.equal(JSON.parse(json.stdout), { input: b, caption: 'lower face', score: expected[1], shortened: false });
});

test('captions come from a file, by path or by name; one that is too long is reported', async () => {
  const file = join(folder, 'captions.jsonl');
  const long = 'low '.repeat(9);
  await writeFile(
    file,
    `${JSON.stringify({ image: a, caption: 'low' })}\n\n${JSON.stringify({ image: 'b.png', caption: long })}\n`,
  );
  const outcome = await score(pictures, '--captions', file, '--json', '--batch', '2');
  assert.is(outcome.code, 0, outcome.stderr);
  const records = outcome.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(
    records.map(({ caption, shortened }) => [caption, shortened]),
    [
      ['low', false],
      [long, true],
    ],
  );
  assert.match(errorLines(outcome)[0], /b\.png: its caption is too long/);
});

test('captions name pictures relative to their file, as data caption writes them', async () => {
  const file = join(folder, 'relative.jsonl');
  await writeFile(file, '{"image": "pictures/a.png", "caption": "low"}\n');
  const outcome = await score(a, '--captions', file, '--json');
  assert.is(JSON.parse(outcome.stdout).caption, 'low');
});

test('a picture that cannot be read costs one line, and the others are scored', async () => {
  const bad = join(folder, 'bad.png');
  await writeFile(bad, 'no picture');
  const outcome = await score(a, bad, b, '--caption', 'low');
  assert.is(outcome.code, 1);
  assert.is(outcome.stdout.trim().split('\n').length, 2);
  assert.equal(errorLines(outcome).length, 1);
});

test('wrong usage ends with 2 and one line', async () => {
  const file = join(folder, 'bad.jsonl');
  const withLine = async (line: string): Promise<string[]> => {
    await writeFile(file, line);
    return [a, '--captions', file];
  };
  for (const [args, why] of [
    [[a], /give --caption or --captions/],
    [[a, '--caption', 'x', '--captions', file], /mutually exclusive/],
    [[a, '--caption', 'x', '--batch', '0'], /--batch must be 1 or more/],
    [[a, '--caption', 'x', '--preprocessing', 'other'], /preprocessing/],
    [await withLine('{"image": "other.png", "caption": "x"}'), /has no caption for .*a\.png/],
  ] as const) {
    const outcome = await score(...args);
    assert.is(outcome.code, 2, outcome.stderr);
    assert.is(errorLines(outcome).length, 1);
    assert.match(outcome.stderr, why);
  }
  for (const [line, why] of [
    ['{', /bad\.jsonl, line 1: it is not JSON/],
    ['{"image": 1}', /line 1: it needs an image and a caption/],
    ['{"image": "a", "caption": "x"}\n{"image": "a", "caption": "y"}', /a has two captions/],
  ] as const) {
    const outcome = await score(...(await withLine(line)));
    assert.is(outcome.code, 2);
    assert.match(outcome.stderr, why);
  }
});

test.run();
