import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { input } from '../../lib/graph/tensor.ts';
import { decodeImage, type Rgb, sharpOf } from '../../lib/image/picture.ts';
import { fitNaturalness, naturalMoments, readNaturalness } from '../../lib/metrics/naturalness.ts';
import { blockMoments, niqe, niqeFeatures } from '../../lib/metrics/niqe.ts';
import { fitNormal, gamma, normalDistance } from '../../lib/metrics/normal.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { relativeError } from '../support/assert.ts';
import { random } from '../support/random.ts';
import { rejects, withFiles } from './support.ts';

const demo = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json')), 'demo');
const shipped = fileURLToPath(new URL('../../weights/naturalness.safetensors', import.meta.url));

test('the gamma function', () => {
  for (const [x, value] of [
    [0.1, 9.513507698668732],
    [0.5, Math.sqrt(Math.PI)],
    [1, 1],
    [4.5, 11.631728396567448],
    [15, 87178291200],
  ]) {
    assert.ok(Math.abs(gamma(x) / value - 1) < 1e-13, `gamma(${x}) is ${gamma(x)}`);
  }
});

test('normal distributions: the fit, and the distance of two under the mean of their covariances', () => {
  const rows = [
    [0, 0],
    [2, 0],
    [0, 4],
    [2, 4],
  ].map((row) => Float64Array.from(row));
  const a = fitNormal(rows);
  assert.equal([...a.mean], [1, 2]);
  assert.equal(
    [...a.covariance].map((v) => Math.round(v * 3)),
    [4, 0, 0, 16],
  );
  const b = { mean: Float64Array.of(2, 4), covariance: Float64Array.of(2, 1, 1, 3) };
  // The mean covariance is [[5/3, 1/2], [1/2, 25/6]], of determinant 241/36.
  const [xx, xy, yy] = [5 / 3, 1 / 2, 25 / 6];
  const expected = Math.sqrt((yy - 2 * 2 * xy + 4 * xx) / (xx * yy - xy * xy));
  assert.ok(Math.abs(normalDistance(a, b) - expected) < 1e-12);
  assert.is(normalDistance(a, a), 0);
});

test('rows that are not whole count for the means of what they have alone', () => {
  const fit = fitNormal([Float64Array.of(1, 1), Float64Array.of(3, 3), Float64Array.of(5, Number.NaN)]);
  assert.equal([...fit.mean], [3, 2]);
  assert.equal([...fit.covariance], [2, 2, 2, 2]);
  assert.throws(() => fitNormal([Float64Array.of(1, 1), Float64Array.of(1, Number.NaN)]), /less than two blocks/);
});

test('a distribution that can have no distance is refused', () => {
  const flat = { mean: Float64Array.of(0, 0), covariance: new Float64Array(4) };
  assert.throws(() => normalDistance(flat, flat), /singular/);
});

test('normal noise has the shape 2, and Laplacian noise the shape 1', async () => {
  using device = await openDevice('cpu');
  const { next } = random(9);
  const size = 192;
  const brightness = input('brightness', [size, size]);
  const { full } = await evaluate(device, { full: blockMoments(brightness).full }, { brightness: noise() });
  // Dividing by the deviation around each pixel cuts the tails of normal noise: its shape is somewhat over 2.
  const shapes = niqeFeatures({ full, half: full }).map((row) => row[0]);
  assert.ok(
    shapes.every((shape) => shape > 2 && shape < 3.5),
    shapes.join(' '),
  );
  // Straight from moments: of 9216 values half below 0, E|x| = 1, E x^2 = 2.
  const count = 96 * 96;
  const laplace = [count / 2, count / 2, count, count, count, 2 * count];
  const moments = Array.from({ length: 5 }, () => laplace).flat();
  const [shape, spread, , mean] = niqeFeatures({ full: moments, half: moments })[0];
  assert.ok(Math.abs(shape - 1) < 0.002, `${shape}`);
  assert.ok(Math.abs(spread - Math.sqrt(2) * Math.sqrt(1 / 2)) < 0.002);
  assert.is(mean, 0);

  function noise(): Float32Array {
    return Float32Array.from({ length: size * size }, () => {
      const radius = Math.sqrt(-2 * Math.log(1 - next()));
      return 128 + 20 * radius * Math.cos(2 * Math.PI * next());
    });
  }
});

async function naturalness(device: Device, { width, height, data }: Rgb): Promise<number> {
  const { full, half } = naturalMoments(input('bytes', [1, height, width, 3], 'u8'));
  const values = await evaluate(device, { full, half }, { bytes: data });
  return niqe(niqeFeatures({ full: values.full, half: values.half }), await readNaturalness(shipped));
}

test('the statistics that ship are those of the photographs they name', async () => {
  using device = await openDevice('cpu');
  const photographs = await Promise.all([1, 2, 3, 4, 5, 6].map((i) => decodeImage(join(demo, `sample${i}.jpg`))));
  const [ours, theirs] = [await fitNaturalness(device, photographs), await readNaturalness(shipped)];
  // Decoders of JPEG differ by a level here and there.
  assert.ok(relativeError(ours.mean, theirs.mean) < 1e-2);
  assert.ok(relativeError(ours.covariance, theirs.covariance) < 2e-2);
});

test('blur, compression and noise make a picture less natural', async () => {
  using device = await openDevice('cpu');
  const photograph = await decodeImage(join(demo, 'sample4.jpg'));
  const small = sharpOf(photograph).resize(800);
  const clear = await decodeImage(await small.clone().png().toBuffer());
  const own = await naturalness(device, clear);
  for (const damaged of [small.clone().blur(2).png(), small.clone().jpeg({ quality: 25 })]) {
    assert.ok((await naturalness(device, await decodeImage(await damaged.toBuffer()))) > own + 1);
  }
  const { next } = random(3);
  const noisy = Uint8Array.from(clear.data, (v) => Math.min(255, Math.max(0, v + 40 * (next() - 0.5))));
  assert.ok((await naturalness(device, { ...clear, data: noisy })) > own + 1);
});

test('pictures without two blocks or without texture are refused', async () => {
  using device = await openDevice('cpu');
  assert.throws(() => naturalMoments(input('bytes', [1, 191, 100, 3], 'u8')), /hold less than two blocks of 96x96/);
  const grey = { width: 192, height: 192, data: new Uint8Array(192 * 192 * 3).fill(90) };
  await rejects(naturalness(device, grey), 'ERR_IMAGE', /less than two blocks with any texture/);
});

test('statistics go by three names; files without them, or with too few, are refused', async () => {
  await withFiles(async (write) => {
    const none = await write(new Map([['other', { dtype: 'F32', shape: [1] }]]));
    await rejects(readNaturalness(none.path), 'ERR_WEIGHTS', /holds no mean and covariance, or mu_pris_param/);
    // The original names.
    const original = await write(
      new Map([
        ['mu_prisparam', { dtype: 'F32', shape: [1, 36] }],
        ['cov_prisparam', { dtype: 'F32', shape: [36, 36] }],
      ]),
    );
    assert.is((await readNaturalness(original.path)).covariance.length, 36 * 36);
    const few = await write(
      new Map([
        ['mu_pris_param', { dtype: 'F32', shape: [1, 35] }],
        ['cov_pris_param', { dtype: 'F32', shape: [36, 36] }],
      ]),
    );
    await rejects(readNaturalness(few.path), 'ERR_WEIGHTS', /35 means/);
  });
});

test.run();
