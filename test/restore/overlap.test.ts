// Windows and how they are put together.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { overlapped, sharesOf, windowStarts } from '../../lib/restore/overlap.ts';
import { planeOf, takeAll } from '../../lib/restore/plane.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { close } from '../support/assert.ts';
import { random } from '../support/random.ts';

test('windows cover every position, and end with the image', () => {
  assert.equal(windowStarts(64, { size: 64, stride: 32 }), [0]);
  assert.equal(windowStarts(128, { size: 64, stride: 32 }), [0, 32, 64]);
  assert.equal(windowStarts(100, { size: 64, stride: 32 }), [0, 32, 36]);
  assert.equal(windowStarts(65, { size: 64, stride: 64 }), [0, 1]);
});

test('the shares of windows sum to 1 everywhere', () => {
  const starts = windowStarts(100, { size: 64, stride: 32 });
  const shares = sharesOf(100, starts, 64);
  const sums = new Float64Array(100);
  for (const [w, start] of starts.entries()) for (const [i, share] of shares[w].entries()) sums[start + i] += share;
  for (const sum of sums) assert.ok(Math.abs(sum - 1) < 1e-6);
  assert.is(shares[0][0], 1, 'what one window alone sees is all its own');
});

test('an image cut into windows and put together is itself', async () => {
  using device = await openDevice('cpu', { threads: 1 });
  const stages = new Stages(device);
  const shape = [2, 21, 34, 3] as const;
  const { next } = random(4);
  const image = Float32Array.from({ length: 2 * 21 * 34 * 3 }, next);
  const plane = planeOf(image, shape);
  const seen: number[] = [];
  const joined = await overlapped(stages, shape, {
    windows: { size: 8, stride: 5 },
    each: (region) => plane.read(region),
    onProgress: (fraction) => seen.push(fraction),
  });
  close(await takeAll(joined), image, 1e-6, 'image');
  assert.is(seen.at(-1), 1);
  stages.dispose();
});

test.run();
