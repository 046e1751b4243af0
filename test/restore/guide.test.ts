// Restoration guidance against plain loops in float64: its weights pixel by pixel, its pull by the loss's differences.
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { flatness } from '../../lib/diffusion/guidance.ts';
import { input } from '../../lib/graph/tensor.ts';
import { ControlLDM } from '../../lib/models/diffbir.ts';
import { Guide } from '../../lib/restore/guide.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { loadWeights } from '../../lib/weights/load.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { random } from '../support/random.ts';
import { tinyDiffBIR, writeDiffBIR } from './latent_support.ts';
import { failure, temporaryFolder } from './support.ts';

const device = await openDevice('cpu', { threads: 1 });
test.after(() => device.dispose());
const { next } = random(3);
const noise = (count: number, size = 1): Float32Array => Float32Array.from({ length: count }, () => size * next());

/** 1 - tanh of the sum over each 2 x 2 block of the magnitude of Sobel's gradient, borders repeated. */
function weightsOf(image: Float32Array, height: number, width: number): number[] {
  const grey = (y: number, x: number): number => {
    const at = 3 * (Math.min(Math.max(y, 0), height - 1) * width + Math.min(Math.max(x, 0), width - 1));
    return 0.2989 * image[at] + 0.587 * image[at + 1] + 0.114 * image[at + 2];
  };
  const magnitude = (y: number, x: number): number => {
    const column = (dx: number): number => grey(y - 1, x + dx) + 2 * grey(y, x + dx) + grey(y + 1, x + dx);
    const row = (dy: number): number => grey(y + dy, x - 1) + 2 * grey(y + dy, x) + grey(y + dy, x + 1);
    return Math.hypot(column(-1) - column(1), row(-1) - row(1));
  };
  return Array.from({ length: height * width }, (_, i) => {
    const [top, left] = [2 * Math.floor(i / width / 2), 2 * Math.floor((i % width) / 2)];
    const four = [0, 1].flatMap((dy) => [0, 1].map((dx) => magnitude(top + dy, left + dx)));
    return 1 - Math.tanh(four.reduce((a, b) => a + b));
  });
}

test('weights are 1 where a picture is flat and fall to 0 at its edges', async () => {
  const [height, width] = [8, 10];
  // Half flat, half noise, and one faint step between.
  const image = noise(height * width * 3, 0.3).map((v, i) => (Math.floor(i / 3) % width < 5 ? 0.5 : v));
  const shape = [1, height, width, 3];
  const { y } = await evaluate(device, { y: flatness(input('image', shape)) }, { image });
  const expected = weightsOf(image, height, width);
  for (const [i, weight] of expected.entries()) assert.ok(Math.abs(y[i] - weight) < 1e-5, `${i}: ${y[i]}, ${weight}`);
  assert.ok(Math.max(...expected) === 1 && Math.min(...expected) < 0.2);
  // Odd sides: the last block repeats the border.
  const odd = await evaluate(device, { y: flatness(input('image', [1, 5, 7, 3])) }, { image: noise(105) });
  assert.is(odd.y.length, 35);
  assert.ok(odd.y.every((v) => v >= 0 && v <= 1));
});

const folder = temporaryFolder();
const paths = await writeDiffBIR((name) => join(folder, name));

for (const loss of ['mse', 'w_mse'] as const) {
  test(`${loss}: latents move along the differences of the loss, within their range of timesteps`, async () => {
    const model = new ControlLDM(tinyDiffBIR);
    const stages = new Stages(device);
    await loadWeights(stages.parameters, model.vae, await openWeights(paths.vae), { frozen: true });
    const [shape, latentShape] = [
      [2, 7, 6, 3],
      [2, 4, 4, 4],
    ] as const;
    const [target, clean] = [noise(2 * 7 * 6 * 3), noise(2 * 4 * 4 * 4)];
    const scale = 1e-4;
    const settings = { guideScale: scale, guideLoss: loss, guideStart: 900, guideStop: 100 };
    const guide = await Guide.create(stages, model, shape, latentShape, target, settings);
    const at = async (timestep: number): Promise<Float32Array> =>
      guide.pull(clean, { timestep, clean: [1, 0], next: [0, 1, 0, 0, 0] }, {});
    for (const timestep of [900, 999, 100, 0]) assert.is(await at(timestep), clean);
    const moved = await at(500);

    const z = input('z', latentShape);
    const decoder = await device.compile({ outputs: { y: model.decode(z) } }, { parameters: stages.parameters });
    const weights = [0, 1].map((n) => weightsOf(target.subarray(n * 126), 7, 6));
    const lossOf = async (latents: Float32Array): Promise<number> => {
      const { y } = await decoder.run({ z: latents });
      let sum = 0;
      for (let i = 0; i < target.length; i++) {
        const [n, pixel, channel] = [Math.floor(i / 126), Math.floor((i % 126) / 3), i % 3];
        const [row, column] = [Math.floor(pixel / 6), pixel % 6];
        // Images from -1 to 1, whose latents were padded to 8 x 8 pixels.
        const difference = 2 * (y[((n * 8 + row) * 8 + column) * 3 + channel] - target[i]);
        sum += (difference ** 2 * (loss === 'mse' ? 1 : weights[n][pixel])) / 126;
      }
      return sum;
    };
    // The derivative along the pull is its squared length over the scale.
    const direction = moved.map((v, i) => v - clean[i]);
    const length = direction.reduce((sum, v) => sum + v * v, 0);
    const step = 0.01 / Math.sqrt(length);
    const [before, after] = await Promise.all(
      [-step, step].map((t) => lossOf(clean.map((v, i) => v + t * direction[i]))),
    );
    const slope = (after - before) / (2 * step);
    const expected = -length / (3000 * scale);
    assert.ok(Math.abs(slope / expected - 1) < 0.01, `${slope}, ${expected}`);
    // And along another direction it is their product.
    const other = noise(clean.length).map((v) => v - 0.5);
    const [low, high] = await Promise.all([-0.002, 0.002].map((t) => lossOf(clean.map((v, i) => v + t * other[i]))));
    const product = -other.reduce((sum, v, i) => sum + v * direction[i], 0) / (3000 * scale);
    assert.ok(
      Math.abs((high - low) / 0.004 - product) < 0.02 * Math.abs(expected) ** 0.5,
      `${(high - low) / 0.004}, ${product}`,
    );
    decoder.dispose();
    stages.dispose();
  });
}

test('where the plan does not fit, guidance is refused with what to do', async () => {
  const model = new ControlLDM(tinyDiffBIR);
  const stages = new Stages(device, 1);
  const making = Guide.create(stages, model, [1, 8, 8, 3], [1, 4, 4, 4], noise(192), { guideScale: 1 });
  const error = await failure(making);
  assert.is(error.code, 'ERR_OUT_OF_MEMORY');
  assert.match(error.message, /give it more \(memory\), or leave guideScale out/);
  stages.dispose();
});

test.run();
