import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { landmarkDistance, landmarkPreprocess, landmarks, loadLandmarks } from '../../lib/metrics/landmarks.ts';
import { FAN } from '../../lib/models/fan.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { rejects, stored, withFiles } from './support.ts';

const [left, right, above, below] = [-1, 1, -64, 64];

/** Maps [1, 64, 64, P] with a peak each at the given place, and half of it at that place plus the offset. */
function maps(...peaks: [place: number, neighbour: number][]): Tensor {
  const values = new Float32Array(64 * 64 * peaks.length);
  peaks.forEach(([place, neighbour], p) => {
    values[place * peaks.length + p] = 1;
    values[(place + neighbour) * peaks.length + p] = 0.5;
  });
  return constant(values, [1, 64, 64, peaks.length], 'f32');
}

async function decode(of: Tensor, size: readonly [number, number] = [64, 64]): Promise<number[]> {
  using device = await openDevice('cpu');
  return [...(await evaluate(device, { points: landmarks(of, size) })).points];
}

const at = (y: number, x: number): number => 64 * y + x;

test('a peak moves a quarter of a pixel to its larger neighbour, and scales with the picture', async () => {
  assert.equal(await decode(maps([at(10, 20), right], [at(30, 40), above])), [20.75, 10.5, 40.5, 30.25]);
  assert.equal(await decode(maps([at(10, 20), left], [at(30, 40), below])), [20.25, 10.5, 40.5, 30.75]);
  assert.equal(await decode(maps([at(10, 20), right]), [256, 512]), [20.75 * 8, 10.5 * 4]);
});

test('one peak in the last row takes the lower neighbour from all points, as officially', async () => {
  // Alone the first would move down; now its lower neighbour is the last value, 0, like its upper one.
  assert.equal(await decode(maps([at(10, 20), below], [at(63, 5), left])), [20.5, 10.5, 5.25, 63.5]);
});

test('one peak in the first row takes the upper neighbour from all points, as officially', async () => {
  assert.equal(await decode(maps([at(10, 20), above], [at(0, 5), right])), [20.5, 10.5, 5.75, 0.5]);
});

test('peaks in the corners have neighbours', async () => {
  const corner = await decode(maps([at(63, 63), above], [at(10, 10), right]));
  assert.ok(corner.every(Number.isFinite));
  // Before the first pixel comes the last one.
  assert.equal((await decode(maps([0, right])))[0], 0.75);
});

test('the pictures of a batch do not meet at the border', async () => {
  using device = await openDevice('cpu');
  const values = new Float32Array(2 * 64 * 64);
  values[at(63, 5)] = 1;
  values[64 * 64 + at(10, 20)] = 1;
  values[64 * 64 + at(11, 20)] = 0.5;
  const { points } = await evaluate(device, { points: landmarks(constant(values, [2, 64, 64, 1], 'f32'), [64, 64]) });
  assert.equal([...points], [5.5, 63.5, 20.5, 10.75]);
});

test('the distance is the mean over landmarks', async () => {
  using device = await openDevice('cpu');
  const [a, b] = [
    [0, 0, 3, 4],
    [3, 4, 3, 4],
  ].map((values) => constant(Float32Array.from(values), [1, 2, 2], 'f32'));
  const { distance } = await evaluate(device, { distance: landmarkDistance(a, b) });
  assert.equal([...distance], [2.5]);
});

test('faces become 256 x 256 pixels of 8 bits', async () => {
  using device = await openDevice('cpu');
  const picture = constant(new Float32Array(128 * 128 * 3).fill(0.3), [1, 128, 128, 3], 'f32');
  const { faces } = await evaluate(device, { faces: landmarkPreprocess(picture) });
  assert.is(faces.length, 256 * 256 * 3);
  assert.ok(faces.every((v) => Math.abs(v - 77 / 255) < 1e-7)); // 76.5 rounds up
});

test('the network loads with and without the module. of its keys', async () => {
  using device = await openDevice('null');
  await withFiles(async (write) => {
    using parameters = device.parameters();
    await loadLandmarks(parameters, new FAN(), await write(stored(new FAN(), (key) => `module.${key}`)));
    const lacking = await write(stored(new FAN(), (key) => (key === 'l3.bias' ? undefined : key)));
    using others = device.parameters();
    await rejects(loadLandmarks(others, new FAN(), lacking), 'ERR_WEIGHTS', /missing: l3\.bias \[99\]/);
  });
});

test.run();
