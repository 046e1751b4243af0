// How MUSIQ and MANIQA cut a picture up.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { cropPlaces, loadManiqa, maniqaCrops } from '../../lib/metrics/maniqa.ts';
import { loadMusiq, multiscalePatches } from '../../lib/metrics/musiq.ts';
import { MANIQA } from '../../lib/models/maniqa.ts';
import { MUSIQ } from '../../lib/models/musiq.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { rejects, stored, withFiles } from './support.ts';

/** A picture [1, h, w, 3] whose every value is its row times `down` plus its column times `across`. */
const slope = (h: number, w: number, down: number, across: number): Tensor =>
  constant(
    Float32Array.from({ length: h * w * 3 }, (_, i) => {
      const pixel = Math.floor(i / 3);
      return Math.floor(pixel / w) * down + (pixel % w) * across;
    }),
    [1, h, w, 3],
    'f32',
  );

test("MUSIQ's patches fill up with grey, the larger half after the picture", async () => {
  using device = await openDevice('cpu');
  // 450 x 75: longer sides 224 and 384 make 224 x 37 (37.3) and 384 x 64, so 7 x 2, 12 x 2 and 15 x 3 patches.
  const picture = multiscalePatches(slope(450, 75, 1 / 1024, 1 / 1024));
  assert.equal(picture.patches.shape, [1, 14 + 24 + 45, 32, 32, 3]);
  const { patches, positions, scales } = await evaluate(device, { ...picture });
  const counts = [0, 1, 2].map((scale) => scales.filter((v) => v === scale).length);
  assert.equal(counts, [14, 24, 45]);
  // As it is: 30 rows of padding, 15 above, and 21 columns, 10 to the left.
  const at = (patch: number, y: number, x: number): number => patches[((patch * 32 + y) * 32 + x) * 3];
  const first = 14 + 24;
  assert.is(at(first, 14, 10), 0);
  assert.is(at(first, 15, 9), 0);
  assert.is(at(first, 15, 10), -1);
  assert.ok(Math.abs(at(first + 1, 16, 0) - ((2 * (1 + 22)) / 1024 - 1)) < 1e-6);
  assert.ok(Math.abs(at(first + 44, 16, 20) - ((2 * (449 + 74)) / 1024 - 1)) < 1e-6);
  assert.is(at(first + 44, 17, 20), 0);
  assert.is(at(first + 44, 16, 21), 0);
  // Rows 0 to 14 of 15 lie on rows 0 to 9 of the grid, three columns on 0, 3 and 6.
  assert.equal([...positions.slice(first, first + 6)], [0, 3, 6, 0, 3, 6]);
  assert.equal([...positions.slice(first + 42)], [90, 93, 96]);
  assert.equal([...positions.slice(0, 4)], [0, 5, 10, 15]);
});

test('MUSIQ takes pictures smaller than a patch', () => {
  assert.equal(multiscalePatches(slope(1, 300, 0, 0)).patches.shape, [1, 7 + 12 + 10, 32, 32, 3]);
});

test("MANIQA's crops lie on a grid, the same way every time", () => {
  assert.equal(cropPlaces([512, 512], 20).length, 20);
  // Five in a row by steps of a quarter of what is free, (512 - 224) / 4.
  assert.equal(cropPlaces([512, 512], 20).slice(3, 7), [
    [0, 216],
    [0, 288],
    [72, 0],
    [72, 72],
  ]);
  assert.equal(cropPlaces([512, 512], 20).at(-1), [216, 288]);
  assert.equal(cropPlaces([256, 300], 4), [
    [0, 0],
    [0, 38],
    [16, 0],
    [16, 38],
  ]);
  assert.equal(cropPlaces([224, 1000], 1), [[0, 0]]);
});

test('a picture too small for a crop is enlarged', async () => {
  using device = await openDevice('cpu');
  const crops = maniqaCrops(slope(112, 150, 1 / 112, 0), 2);
  assert.equal(crops.shape, [2, 224, 224, 3]);
  const { values } = await evaluate(device, { values: crops });
  // Row 100 of twice the size lies at 49.75.
  assert.ok(Math.abs(values[100 * 224 * 3] - ((2 * 49.75) / 112 - 1)) < 1e-5);
});

test('published files load with what is left aside, and others are refused', async () => {
  using device = await openDevice('null');
  await withFiles(async (write) => {
    const maniqa = stored(new MANIQA());
    const extra = { shape: [2], dtype: 'F32' as const };
    for (const key of ['vit.blocks.11.norm1.weight', 'vit.head.bias', 'swintransformer2.downsample.bias']) {
      maniqa.set(key, extra);
    }
    using parameters = device.parameters();
    await loadManiqa(parameters, new MANIQA(), await write(maniqa));
    using others = device.parameters();
    const musiq = await write(stored(new MUSIQ(), (key) => (key === 'head.bias' ? undefined : key)));
    await rejects(loadMusiq(others, new MUSIQ(), musiq), 'ERR_WEIGHTS', /missing: head\.bias \[1\]/);
    await rejects(loadManiqa(others, new MANIQA(), musiq), 'ERR_WEIGHTS', /unexpected: conv_root\.weight/);
  });
});

test.run();
