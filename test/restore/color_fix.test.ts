import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { adainColorFix, waveletColorFix, waveletLow } from '../../lib/restore/color_fix.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { close } from '../support/assert.ts';
import { random } from '../support/random.ts';

const device = await openDevice('cpu');
test.after(() => device.dispose());

const [height, width] = [20, 24];
const { next } = random(3);
const noise = Float64Array.from({ length: height * width * 3 }, next);
const image = (values: Float64Array): Tensor => constant(values, [1, height, width, 3], 'f64');
const flat = (r: number, g: number, b: number): Tensor => image(noise.map((_, i) => [r, g, b][i % 3]));
const run = async (y: Tensor): Promise<Float64Array> => (await evaluate(device, { y }, {})).y as Float64Array;

test('an image mended by itself stays as it is', async () => {
  for (const fix of [waveletColorFix, adainColorFix])
    close(await run(fix(image(noise), image(noise))), noise, 1e-12, 'mended by itself');
});

test('a low-pass keeps one colour and the mean of a symmetric spot', async () => {
  close(await run(waveletLow(flat(0.1, 0.5, 0.9))), await run(flat(0.1, 0.5, 0.9)), 1e-12, 'one colour');
  const spot = noise.map((_, i) => Number(i === (10 * width + 12) * 3));
  const low = await run(waveletLow(image(spot), 2));
  assert.ok(Math.abs(low.reduce((sum, v) => sum + v) - 1) < 1e-12);
  // 1/4, 1/2, 1/4 at distances 1 and then 2: 1/4 of the middle stays along each axis.
  assert.ok(Math.abs(low[(10 * width + 12) * 3] - 1 / 16) < 1e-12);
});

test('details come from the content, the colour from the style', async () => {
  const mended = await run(waveletColorFix(image(noise), flat(0.2, 0.4, 0.6)));
  const [low, wanted] = [await run(waveletLow(image(noise))), await run(flat(0.2, 0.4, 0.6))];
  close(
    mended,
    noise.map((v, i) => v - low[i] + wanted[i]),
    1e-12,
    'wavelet',
  );
  const paler = noise.map((v, i) => 0.3 * v + (i % 3) / 10);
  close(await run(adainColorFix(image(noise), image(paler))), paler, 1e-3, 'adain');
});

test.run();
