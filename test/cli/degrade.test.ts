import { mkdir, readdir, readFile, rm, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readJsonLines } from '../../lib/data/jsonl.ts';
import { picture, temporaryFolder } from '../restore/support.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli data degrade');
const folder = temporaryFolder();
const clean = join(folder, 'clean');
await mkdir(clean);
await picture(96, 80).png().toFile(join(clean, 'a.png'));
await picture(80, 96).png().toFile(join(clean, 'b.png'));

const degrade = (out: string, ...args: string[]) =>
  refl(['data', 'degrade', clean, '-o', join(folder, out), '--threads', '1', ...args]);

test('pictures come out damaged, at their size, the same for the same seed', async () => {
  const first = await degrade('first', '--seed', '7', '--json', '--down', '2', '3', '--noise', '4', '5');
  assert.is(first.code, 0, first.stderr);
  const records = first.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.equal(
    records.map(({ width, height }) => [width, height]),
    [
      [96, 80],
      [80, 96],
    ],
  );
  assert.ok(records.every(({ down, noise }) => down >= 2 && down < 3 && noise >= 4 && noise < 5));
  assert.is.not(records[0].down, records[1].down);
  assert.equal((await readdir(join(folder, 'first'))).sort(), ['a.png', 'b.png', 'degradations.jsonl']);

  await degrade('second', '--seed', '7', '--down', '2', '3', '--noise', '4', '5');
  const a = join('a.png');
  const bytes = await readFile(join(folder, 'first', a));
  assert.ok(bytes.equals(await readFile(join(folder, 'second', a))));
  const [damaged, original] = [await sharp(bytes).raw().toBuffer(), await picture(96, 80).raw().toBuffer()];
  const error = damaged.reduce((sum, v, i) => sum + (v - original[i]) ** 2, 0) / damaged.length;
  assert.ok(error > 4 && error < 4000, `mean squared error ${error}`);
});

test('started again it makes what is missing; a file more changes no other; other options are refused', async () => {
  const manifest = join(folder, 'first', 'degradations.jsonl');
  const args = ['first', '--seed', '7', '--down', '2', '3', '--noise', '4', '5'] as const;
  const read = (name: string) => readFile(join(folder, 'first', name));
  const before = [await read('a.png'), await read('b.png'), await read('degradations.jsonl')];
  const { lines } = await readJsonLines(manifest);
  assert.equal(
    lines.map(({ record }) => [record.image, record.width, (record.state as number[]).length]),
    [
      ['a.png', 96, 4],
      ['b.png', 80, 4],
    ],
  );
  await rm(join(folder, 'first', 'a.png'));
  await truncate(manifest, before[2].length - 5);
  const again = await degrade(...args);
  assert.is(again.code, 0, again.stderr);
  assert.match(again.stderr, /a line that was cut off is removed/);
  for (const [i, name] of ['a.png', 'b.png', 'degradations.jsonl'].entries())
    assert.ok((await read(name)).equals(before[i]), name);

  await picture(64, 64).png().toFile(join(clean, 'aa.png'));
  assert.is((await degrade(...args)).code, 0);
  assert.ok((await read('b.png')).equals(before[1]));
  assert.is((await readJsonLines(manifest)).lines.length, 3);

  const other = await degrade('first', '--seed', '8', '--down', '2', '3', '--noise', '4', '5');
  assert.is(other.code, 2);
  assert.match(errorLines(other)[0], /was damaged otherwise: give the same options, or another folder/);
});

test('bounds that make no sense are refused', async () => {
  for (const args of [
    ['--sigma', '3', '2'],
    ['--jpeg', '0', '100'],
    ['--down', 'a', 'b'],
    ['--noise', '1'],
    ['--seed', '0.5'],
  ]) {
    const outcome = await degrade('never', ...args);
    assert.is(outcome.code, 2, args.join(' '));
    assert.is(errorLines(outcome).length, 1);
    assert.match(outcome.stderr, new RegExp(args[0].slice(2)));
  }
});

test.run();
