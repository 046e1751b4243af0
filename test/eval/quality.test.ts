import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Degrader, defaultRanges, drawDegradation } from '../../lib/data/degrade.ts';
import { Draws } from '../../lib/data/draws.ts';
import {
  compareQuality,
  contenders,
  type Fidelity,
  featureDistance,
  meanFidelity,
  unsharpMask,
} from '../../lib/eval/quality.ts';
import { loadNetwork } from '../../lib/faces/networks.ts';
import { affine, cast } from '../../lib/graph/ops/elementwise.ts';
import { input } from '../../lib/graph/tensor.ts';
import type { Rgb } from '../../lib/image/picture.ts';
import { FaceFeatures, FaceRecognition } from '../../lib/models/faceapi.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { close } from '../support/assert.ts';

const test = suite('quality');
const side = 96;
let device: Device;
let clean: Rgb;
test.before(async () => {
  device = await openDevice('cpu');
  const file = fileURLToPath(new URL('../../samples/portrait-1.jpg', import.meta.url));
  const data = await sharp(await readFile(file))
    .resize(side, side)
    .raw()
    .toBuffer();
  clean = { width: side, height: side, data };
});
test.after(() => device.dispose());

/** 10 log10 of 255 squared by the mean squared difference. */
function decibels(a: Uint8Array, b: Uint8Array): number {
  const error = a.reduce((sum, v, i) => sum + (v - b[i]) ** 2, 0) / a.length;
  return 10 * Math.log10(255 ** 2 / error);
}

const bytesOf = (image: Float32Array): Uint8Array => Uint8Array.from(image, (v) => v * 255 + 0.5);

test('the unsharp mask adds what a Gaussian of deviation 2 takes away, reflected at the borders, and clips', async () => {
  const [h, w, radius] = [17, 20, 15];
  const data = Float32Array.from({ length: h * w * 3 }, (_, i) => 0.5 + 0.5 * Math.sin(i * 2.3));
  const image = unsharpMask(input('x', [1, h, w, 3]));
  const { image: got } = await evaluate(device, { image }, { x: data });
  const bell = Array.from({ length: 2 * radius + 1 }, (_, i) => Math.exp(-((i - radius) ** 2) / 8));
  const total = bell.reduce((a, b) => a + b);
  const mirror = (i: number, n: number): number => (i < 0 ? -i : i >= n ? 2 * (n - 1) - i : i);
  const want = data.map((v, at) => {
    const [y, x, c] = [Math.floor(at / (3 * w)), Math.floor(at / 3) % w, at % 3];
    let blurred = 0;
    for (let dy = -radius; dy <= radius; dy++) {
      for (let dx = -radius; dx <= radius; dx++) {
        const weight = (bell[dy + radius] * bell[dx + radius]) / total ** 2;
        blurred += weight * data[(mirror(y + dy, h) * w + mirror(x + dx, w)) * 3 + c];
      }
    }
    return Math.min(1, Math.max(0, 2 * v - blurred));
  });

  close(got, want, 1e-5, 'unsharp mask');
  assert.ok(got.some((v) => v === 0) && got.some((v) => v === 1));
});

const networks: Record<string, () => FaceRecognition | FaceFeatures> = {
  face_recognition: () => new FaceRecognition(),
  face_expression: () => new FaceFeatures(),
};
for (const [name, make] of Object.entries(networks))
  test(`${name}: features are none apart from themselves, the same both ways, farther the stronger the blur`, async () => {
    using parameters = device.parameters();
    const network = await loadNetwork(parameters, name, make);
    const image = (name: string) => affine(cast(input(name, [1, side, side, 3], 'u8'), 'f32'), 1 / 255);
    const outputs = { distance: featureDistance(network, image('a'), image('b')) };
    using program = await device.compile({ outputs }, { parameters });
    const blurred = (sigma: number): Promise<Buffer> =>
      sharp(clean.data, { raw: { width: side, height: side, channels: 3 } })
        .blur(sigma)
        .raw()
        .toBuffer();
    const between = async (a: Uint8Array, b: Uint8Array): Promise<number> => (await program.run({ a, b })).distance[0];
    assert.ok(Math.abs(await between(clean.data, clean.data)) < 1e-6);
    const [little, much] = [await blurred(1), await blurred(4)];
    const distances = [await between(little, clean.data), await between(much, clean.data)];
    assert.ok(distances[0] > 0.01 && distances[0] < distances[1], distances.join(' '));
    assert.ok(Math.abs((await between(clean.data, much)) - distances[1]) < 1e-5);
  });

test('each contender is measured against the original of its own degradation, which the seed decides', async () => {
  const faces = [
    { name: 'a', clean },
    { name: 'b', clean },
  ];
  const seen: Rgb[] = [];
  const restore = async (degraded: Rgb): Promise<Rgb> => {
    seen.push(degraded);
    return seen.length === 1 ? clean : degraded;
  };
  const rows = await compareQuality(device, faces, { draws: 2, seed: 5, restore });
  assert.equal(
    rows.map(({ name }) => name),
    ['a', 'a', 'b', 'b'],
  );
  // The perfect answer, and the degraded face itself.
  const perfect = rows[0].fidelity.model;
  assert.is(perfect.psnr, Number.POSITIVE_INFINITY);
  assert.ok(Math.abs(perfect.ssim - 1) < 1e-6 && Math.abs(perfect.distance) < 1e-6);
  for (const { fidelity } of rows.slice(1)) assert.equal(fidelity.model, fidelity.input);

  using degrader = new Degrader(device);
  for (const [i, [face, draw]] of [
    [0, 0],
    [0, 1],
    [1, 0],
    [1, 1],
  ].entries()) {
    const { image } = await degrader.degrade(clean, drawDegradation(new Draws(5, face, draw)));
    assert.ok(bytesOf(image).every((v, k) => v === seen[i].data[k]));
    const { input: degraded, bicubic, unsharp } = rows[i].fidelity;
    assert.ok(Math.abs(degraded.psnr - decibels(seen[i].data, clean.data)) < 1e-3);
    assert.ok(bicubic.psnr !== degraded.psnr && Math.abs(bicubic.psnr - degraded.psnr) < 2);
    assert.ok(unsharp.psnr !== degraded.psnr && unsharp.psnr < degraded.psnr + 3);
  }
});

test('a face that was not made smaller is not enlarged: bicubic and bilinear agree', async () => {
  const ranges = { ...defaultRanges, down: [1, 1] } as const;
  const restore = async (degraded: Rgb): Promise<Rgb> => degraded;
  const [{ fidelity }] = await compareQuality(device, [{ name: 'a', clean }], { ranges, draws: 1, seed: 5, restore });
  assert.equal(fidelity.bicubic, fidelity.input);
});

test('means are over rows, one contender and one figure at a time', () => {
  const fidelity = (k: number): Record<(typeof contenders)[number], Fidelity> => {
    const of = (i: number): Fidelity => ({ psnr: 10 * i + k, ssim: i / 10 + k, distance: i - k });
    return { input: of(0), bicubic: of(1), unsharp: of(2), model: of(3) };
  };
  const means = meanFidelity([
    { name: 'a', fidelity: fidelity(1) },
    { name: 'b', fidelity: fidelity(4) },
  ]);
  assert.equal(Object.keys(means), [...contenders]);
  assert.equal(means.input, { psnr: 2.5, ssim: 2.5, distance: -2.5 });
  assert.equal(means.model.psnr, 32.5);
  assert.ok(Math.abs(means.model.ssim - 2.8) < 1e-12);
  assert.is(means.unsharp.distance, -0.5);
});

test.run();
