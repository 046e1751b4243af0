import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { noiseLevel, sharpness } from '../../lib/metrics/estimates.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { random } from '../support/random.ts';

const size = 128;

/** Two grey pictures, whose levels of 255 are given by pixel. */
function pictures(...levels: ((y: number, x: number) => number)[]): Tensor {
  const values = levels.flatMap((level) =>
    Array.from({ length: size * size }, (_, i) => level(Math.floor(i / size), i % size) / 255).flatMap((v) => [
      v,
      v,
      v,
    ]),
  );
  return constant(Float32Array.from(values), [levels.length, size, size, 3], 'f32');
}

async function measure(images: Tensor): Promise<{ sharp: number[]; noise: number[] }> {
  using device = await openDevice('cpu');
  const { sharp, noise } = await evaluate(device, { sharp: sharpness(images), noise: noiseLevel(images) });
  return { sharp: [...sharp], noise: [...noise] };
}

test('noise is measured in levels, and slopes and edges are none', async () => {
  const { next } = random(5);
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  const { noise } = await measure(
    pictures(
      () => 128 + 8 * normal(),
      (y, x) => y + x / 2,
      (_, x) => (x < 64 ? 40 : 200),
    ),
  );
  assert.ok(Math.abs(noise[0] - 8) < 0.3, `${noise[0]}`);
  assert.ok(noise[1] < 1e-3);
  assert.ok(noise[2] < 1e-3);
});

test('sharpness is the deviation of the Laplacian', async () => {
  // A chequerboard of 100 and 110 has Laplacians of 40 and -40.
  const { sharp } = await measure(
    pictures(
      (y, x) => ((y + x) % 2 ? 100 : 110),
      () => 70,
    ),
  );
  assert.ok(Math.abs(sharp[0] - 40) < 1e-3, `${sharp[0]}`);
  assert.ok(sharp[1] < 1e-3);
});

test.run();
