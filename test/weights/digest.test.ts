import { copyFile, open } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { sampledDigest } from '../../lib/weights/digest.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { writeSafetensors } from '../../lib/weights/write.ts';
import { temporaryFolder } from '../restore/support.ts';

const folder = temporaryFolder();
const digestOf = async (path: string): Promise<string> => sampledDigest(await openWeights(path));
const write = async (name: string, values: Record<string, Float32Array>): Promise<string> => {
  const path = join(folder, name);
  const tensors = Object.entries(values).map(([key, data]) => {
    return [key, { dtype: 'F32', shape: [data.length], data: () => data }] as const;
  });
  await writeSafetensors(path, new Map(tensors), { name });
  return path;
};

test('weights are told by what they are, and not by where they lie or what is said of them', async () => {
  const zip = fileURLToPath(new URL('./checkpoints/zip.pth', import.meta.url));
  const before = await digestOf(zip);
  const copy = join(folder, 'copy.pth');
  await copyFile(zip, copy);
  assert.is(await digestOf(copy), before);
  const values = { a: Float32Array.of(1, 2), b: Float32Array.of(3) };
  assert.is(await digestOf(await write('one', values)), await digestOf(await write('two', values)));
});

test('other values, names or shapes are other weights', async () => {
  const values = { a: new Float32Array(10_000).fill(1), b: Float32Array.of(2) };
  const path = await write('whole', values);
  const digests = [await digestOf(path)];
  // The ends, the middle, and a tensor of one value.
  for (const [key, at] of [
    ['a', 0],
    ['a', 5000],
    ['a', 9999],
    ['b', 0],
  ] as const) {
    const changed = values[key].with(at, 3) as Float32Array;
    digests.push(await digestOf(await write(`${key}${at}`, { ...values, [key]: changed })));
  }
  digests.push(await digestOf(await write('names', { a: values.a, c: values.b })));
  digests.push(await digestOf(await write('shapes', { ...values, a: values.a.subarray(1) })));
  assert.is(new Set(digests).size, digests.length);
});

test('of a large tensor three places are looked at', async () => {
  const values = new Float32Array(10_000).fill(1);
  const path = await write('large', { values });
  const before = await digestOf(path);
  const [{ offset }] = (await openWeights(path)).entries.get('values')!.pieces;
  const file = await open(path, 'r+');
  await file.write(Float32Array.of(7), 0, 4, offset + 4 * 2000);
  await file.close();
  assert.is(await digestOf(path), before);
});

test.run();
