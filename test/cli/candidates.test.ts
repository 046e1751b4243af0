// timeout: 300 s
import { mkdir, readdir, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readComparisons } from '../../lib/data/comparisons.ts';
import { readJsonLines } from '../../lib/data/jsonl.ts';
import { picture, temporaryFolder, writeTinyModel } from '../restore/support.ts';
import { random } from '../support/random.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli data candidates');
const folder = temporaryFolder();
const faces = join(folder, 'faces');
await mkdir(faces);
for (const name of ['ann_0', 'ann_1', 'bob_0'])
  await picture(32, 32)
    .png()
    .toFile(join(faces, `${name}.png`));
const model = join(folder, 'tiny.safetensors');
await writeTinyModel(model);
const people = join(folder, 'manifest.json');
const who = ['ann_0', 'ann_1', 'bob_0'].map((id) => ({ file: `train/${id}.png`, person: id.split('_')[0] }));
await writeFile(people, JSON.stringify({ faces: who }));
const captions = join(folder, 'captions.jsonl');
await writeFile(
  captions,
  who.map(({ file }) => `${JSON.stringify({ image: file.slice(6), caption: file })}\n`).join(''),
);
const ways = ['input', 'bicubic', 'sharpen', 'denoise', `tiny=${model}`, `${model},seed=7`];

const make = (out: string, ...args: string[]) =>
  refl(['data', 'candidates', faces, '-o', join(folder, out), '--threads', '1', ...args]);

/** Everything in a folder, by name. */
async function contents(out: string): Promise<Map<string, string>> {
  const names = (await readdir(join(folder, out), { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name));
  const read = names
    .sort()
    .map(async (name) => [name.slice(join(folder, out).length), await readFile(name, 'base64')] as const);
  return new Map(await Promise.all(read));
}

test('each face has four of the candidates, and their six pairs', async () => {
  const outcome = await make('first', '--candidates', ...ways, '--people', people, '--captions', captions, '--json');
  assert.is(outcome.code, 0, outcome.stderr);
  const output = join(folder, 'first', 'pairs.jsonl');
  assert.equal(JSON.parse(outcome.stdout), { output, made: 12, kept: 0, pairs: 18 });
  const { value: pairs } = await readComparisons(output);
  assert.equal([...new Set(pairs.map(({ person }) => person))], ['ann', 'bob']);
  assert.is(new Set(pairs.map(({ pair }) => pair)).size, 18);
  assert.ok(pairs.every(({ a, b, caption }) => a !== b && caption?.startsWith('train/')));
  assert.ok(pairs.every(({ input, caption }) => input === join(faces, caption!.slice(6))));
  const { lines } = await readJsonLines(join(folder, 'first', 'candidates.jsonl'));
  assert.is(lines.length, 12);
  assert.ok(
    lines.some(({ record }) => record.candidate === 'tiny-seed7' && record.seed === 7 && record.model === model),
  );
  const sets = who.map(({ file }) =>
    pairs.filter(({ caption }) => caption === file).map(({ a }) => a.split('/').at(-1)),
  );
  assert.not.equal(sets[0], sets[1], 'which candidates, and their order, differ from face to face');
  for (const { a } of pairs) {
    const { width, height } = await sharp(a).metadata();
    assert.equal([width, height], [32, 32]);
  }
});

test('started again it makes what is missing, and the folder is the same', async () => {
  const args = ['--candidates', ...ways, '--people', people, '--captions', captions, '--json'];
  const before = await contents('first');
  const manifest = join(folder, 'first', 'candidates.jsonl');
  const { lines } = await readJsonLines(manifest);
  await rm(join(folder, 'first', lines[0].record.image as string));
  await rm(join(folder, 'first', 'pairs.jsonl'));
  // The last line was cut off, and its picture half done.
  await truncate(manifest, (await readFile(manifest)).length - 9);
  await writeFile(join(folder, 'first', lines[11].record.image as string), 'half');
  const outcome = await make('first', ...args);
  assert.is(outcome.code, 0, outcome.stderr);
  assert.equal([JSON.parse(outcome.stdout).made, JSON.parse(outcome.stdout).kept], [2, 10]);
  assert.match(outcome.stderr, /the last line was cut off/);
  assert.equal(await contents('first'), before);

  const other = await make(
    'first',
    '--candidates',
    ...ways.slice(0, 4),
    `tiny=${model},seed=8`,
    `${model},seed=7`,
    '--people',
    people,
  );
  assert.is(other.code, 1);
  assert.match(errorLines(other)[0], /was made with .*give another folder/);
});

test('without --people every picture is another person, and it is said; a bad picture costs its face', async () => {
  await writeFile(join(faces, 'zoe.png'), 'no picture');
  const outcome = await make('second', '--candidates', 'input', 'sharpen', '--per-face', '2');
  assert.is(outcome.code, 1);
  assert.match(outcome.stderr, /every picture counts as another person/);
  assert.match(outcome.stderr, /zoe\.png/);
  const { value: pairs } = await readComparisons(join(folder, 'second', 'pairs.jsonl'));
  assert.equal(
    pairs.map(({ person }) => person),
    ['ann_0', 'ann_1', 'bob_0'],
  );
  await rm(join(faces, 'zoe.png'));
});

test('filters do what they are named for', async () => {
  const { int } = random(3);
  const grey = Array.from({ length: 32 * 32 }, () => int(90, 160));
  const noisy = Uint8Array.from({ length: 32 * 32 * 3 }, (_, i) => grey[Math.floor(i / 3)]);
  await sharp(noisy, { raw: { width: 32, height: 32, channels: 3 } })
    .png()
    .toFile(join(faces, 'noisy.png'));
  const outcome = await make('third', '--candidates', 'input', 'bicubic', 'sharpen', 'denoise');
  assert.is(outcome.code, 0, outcome.stderr);
  const spread = async (name: string): Promise<number> => {
    const { channels } = await sharp(join(folder, 'third', 'noisy', `${name}.png`)).stats();
    return channels[0].stdev;
  };
  const [input, bicubic, sharpened, denoised] = await Promise.all(
    ['input', 'bicubic', 'sharpen', 'denoise'].map(spread),
  );
  assert.ok(
    bicubic < input * 0.8 && denoised < input / 2 && sharpened > input,
    [input, bicubic, sharpened, denoised].join(' '),
  );
  await rm(join(faces, 'noisy.png'));
});

test('what makes no sense is refused with one line', async () => {
  const cases: [string[], RegExp][] = [
    [
      ['--candidates', 'input', 'sharpen'],
      /perFace must be a whole number from 2 to the number of candidates, 2, got 4/,
    ],
    [['--candidates', 'input', 'input'], /two candidates are named input/],
    [['--candidates', 'sharpen,seed=1'], /sharpen has no use for seed=1/],
    [['--candidates', `${model},speed=1`], /"speed=1" in .* is no setting/],
    [['--candidates', `${model},steps=x`], /"steps=x" in .* is no setting/],
    [['--candidates', `${model},steps=3`, 'input', '--per-face', '2'], /tiny\.safetensors has no use for steps/],
    [['--people', captions], /is no manifest of data faces/],
    [['--captions', people], /it needs an image and a caption/],
  ];
  for (const [args, message] of cases) {
    const outcome = await make('other', ...args);
    assert.is(outcome.code, 2, outcome.stderr);
    assert.match(errorLines(outcome).at(-1)!, message);
  }
});

test.run();
