import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { input } from '../../lib/graph/tensor.ts';
import { diffusionRewardPreprocess, hpsPreprocess, padToSquare, resizeLonger } from '../../lib/reward/preprocess.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { close } from '../support/assert.ts';
import { random } from '../support/random.ts';
import { codeOf } from '../support/runtime.ts';

const test = suite<{ device: Device }>('preprocessing', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu');
});
test.after(({ device }) => device.dispose());

const mean = [0.48145466, 0.4578275, 0.40821073];
const deviation = [0.26862954, 0.26130258, 0.27577711];
const black = mean.map((m, c) => -m / deviation[c]);

const image = (h: number, w: number) => input('x', [1, h, w, 3]);
const draw = (length: number): Float32Array => {
  const { next } = random(3);
  return Float32Array.from({ length }, next);
};

test('sides round as in Python, halves to even, and padding splits with the odd pixel last', async ({ device }) => {
  const shape = (h: number, w: number, size: number) => resizeLonger(image(h, w), size, 'plain').shape.slice(1, 3);
  assert.equal(shape(5, 20, 10), [2, 10]);
  assert.equal(shape(7, 20, 10), [4, 10]);
  assert.equal(shape(20, 3, 10), [10, 2]);
  assert.equal(shape(512, 512, 224), [224, 224]);
  assert.equal(hpsPreprocess(image(7, 3), { size: 14 }).shape, [1, 14, 14, 3]);

  const y = hpsPreprocess(image(1, 4), { size: 4 });
  assert.equal(y.shape, [1, 1, 4, 3]);
  const { padded } = await evaluate(device, { padded: padToSquare(image(1, 4), 4) }, { x: draw(12) });
  assert.equal(
    [...padded].map((v) => v !== 0),
    Array.from({ length: 48 }, (_, i) => i >= 12 && i < 24),
  );
});

test('what is filled is black before the colours are normalised', async ({ device }) => {
  const { y } = await evaluate(device, { y: hpsPreprocess(image(2, 8), { size: 4 }) }, { x: draw(48) });
  const row = [...Array(4)].flatMap(() => black);
  close(y.subarray(0, 12), row, 1e-6, 'above');
  close(y.subarray(24, 36), row, 1e-6, 'first row below');
  close(y.subarray(36), row, 1e-6, 'second row below');
});

test('an image whose longer side fits already is only normalised, also where it is no square', async ({ device }) => {
  const x = draw(4 * 2 * 3);
  for (const resampling of ['plain', 'antialias', 'pil'] as const) {
    const y = hpsPreprocess(image(4, 2), { size: 4, resampling });
    assert.equal(y.shape, [1, 4, 2, 3]);
    close(
      (await evaluate(device, { y }, { x })).y,
      x.map((v, i) => (v - mean[i % 3]) / deviation[i % 3]),
      1e-6,
      resampling,
    );
  }
});

test("DiffusionReward's own takes [-1, 1], limits it and keeps a square of the right size", async ({ device }) => {
  const x = draw(2 * 2 * 3).map((v) => 4 * v - 2);
  const { y } = await evaluate(device, { y: diffusionRewardPreprocess(image(2, 2), { size: 2 }) }, { x });
  const limited = x.map((v) => Math.min(1, Math.max(0, (v + 1) / 2)));
  close(
    y,
    limited.map((v, i) => (v - mean[i % 3]) / deviation[i % 3]),
    1e-6,
    'values',
  );
  assert.equal(diffusionRewardPreprocess(image(30, 26), { size: 8 }).shape, [1, 9, 8, 3]);
});

test('a picture so narrow that nothing is left of it is refused', async () => {
  assert.is(await codeOf(() => hpsPreprocess(image(1, 1000))), 'ERR_SHAPE');
});

test.run();
