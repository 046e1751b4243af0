import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { convertWeights } from '../../lib/weights/convert.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { archive, dict, raw, tensor, text } from './pickles.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-convert-'));
test.after(() => rmSync(folder, { recursive: true }));
const out = join(folder, 'out.safetensors');
const zip = fileURLToPath(new URL('./checkpoints/zip.pth', import.meta.url));
const osediff = fileURLToPath(new URL('./checkpoints/osediff.pkl', import.meta.url));

test('every tensor keeps its type, shape and bytes, and metadata come along', async () => {
  const from = await openWeights(zip);
  await convertWeights(from, out);
  const to = await openWeights(out);
  for (const [key, { dtype, shape }] of from.entries) {
    const entry = to.entries.get(key)!;
    assert.equal([entry.dtype, entry.shape], [dtype, shape], key);
    if (dtype !== 'I64' && dtype !== 'BOOL') assert.equal(await readTensor(to, key), await readTensor(from, key), key);
  }
  await convertWeights(await openWeights(osediff), out);
  const again = await openWeights(out);
  assert.is(again.metadata.rank_unet, '4');
  // What was written is read like any other file, also to write it anew in its own place.
  await convertWeights(again, out);
  assert.equal((await openWeights(out)).entries, again.entries);
});

test('floating tensors are rounded to a type on request, and others are left alone', async () => {
  const from = await openWeights(zip);
  for (const dtype of ['F16', 'BF16', 'F32'] as const) {
    await convertWeights(from, out, { dtype });
    const to = await openWeights(out);
    for (const [key, entry] of from.entries) {
      assert.is(to.entries.get(key)!.dtype, /F/.test(entry.dtype) ? dtype : entry.dtype, key);
    }
    // The values are few bits wide.
    assert.equal([...(await readTensor(to, 'transposed'))], [...(await readTensor(from, 'transposed'))]);
    assert.equal([...(await readTensor(to, 'f64'))], [1, 1.125, 1.25]);
  }
});

test('tensors that share their values more often than those of a model are refused', async () => {
  const views = Array.from({ length: 200 }, (_, i) => raw(text(`w${i}`), tensor({ values: 10_000 })));
  const path = join(folder, 'shared.pth');
  writeFileSync(path, archive(dict(...views), { 0: new Uint8Array(40_000) }));
  try {
    await convertWeights(await openWeights(path), join(folder, 'shared.safetensors'));
  } catch (error) {
    assert.match((error as Error).message, /shared\.pth cannot be converted: its tensors share \d+ bytes/);
    return;
  }
  assert.unreachable();
});

test('an abort leaves what was there', async () => {
  const before = readdirSync(folder).sort();
  const signal = AbortSignal.abort(new Error('enough'));
  try {
    await convertWeights(await openWeights(zip), join(folder, 'new.safetensors'), { signal });
  } catch (error) {
    assert.is((error as Error).message, 'enough');
    assert.equal(readdirSync(folder).sort(), before);
    return;
  }
  assert.unreachable();
});

test('progress goes to the end', async () => {
  const seen: number[] = [];
  await convertWeights(await openWeights(zip), out, { onProgress: (fraction) => seen.push(fraction) });
  assert.equal(seen, [...seen].sort());
  assert.is(seen.at(-1), 1);
});

test.run();
