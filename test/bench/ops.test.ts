// What the bench counts and compares: a wrong count would make every figure wrong without any test noticing.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { sd21Noise } from '../../lib/bench/models.ts';
import { opBenches } from '../../lib/bench/ops.ts';
import { fill, median } from '../../lib/bench/timing.ts';
import { workOf } from '../../lib/bench/work.ts';
import { input } from '../../lib/graph/index.ts';
import { sd21 } from '../../lib/models/latent.ts';
import { UNet } from '../../lib/models/unet.ts';

test('names are unique, so that one can be picked', () => {
  assert.is(new Set(opBenches.map(({ name }) => name)).size, opBenches.length);
});

test('operations are counted from shapes', () => {
  const flops = Object.fromEntries(
    opBenches.map(({ name, operands, build }) => [
      name,
      workOf([build(...operands.map(({ shape }) => input('x', shape)))]).flops,
    ]),
  );
  const conv = 2 * 64 * 64 * 320 * 320 * 9;
  assert.is(flops['conv 3x3 320 @64'], conv);
  assert.is(flops['conv 3x3 320 @64 /2'], conv / 4);
  assert.is(flops['conv 3x3 320 @64, gradient by x'], conv);
  assert.is(flops['conv 3x3 320 @64, gradient by w'], conv);
  for (const way of ['', ', trainable', ', gradient by x, trainable', ', gradient by w']) {
    assert.is(flops[`linear 4096x320x2560${way}`], 2 * 4096 * 320 * 2560, way);
  }
  assert.is(flops['attention 5x4096(77)x64'], 4 * 5 * 4096 * 77 * 64);
  assert.is(flops['add 4096x320'], 0);
});

test('the UNet comes to the 402.1 billion multiplications that are known of it', () => {
  const { flops } = workOf([sd21Noise(new UNet(sd21.unet), input('latent', [1, 64, 64, 4]), 999)]);
  assert.is((flops / 2e9).toFixed(1), '402.1');
});

test('gradients are benched without the forward pass', () => {
  for (const { name, operands, build } of opBenches) {
    if (!name.includes('gradient')) continue;
    const { node } = build(...operands.map(({ shape }) => input('x', shape)));
    assert.ok(
      [node, ...node.inputs.map((t) => t!.node)].every(({ op }) => /^(input|reshape|matmul|conv2dGrad\w+)$/.test(op)),
      name,
    );
  }
});

test('operands are hashed numbers from -0.5 to 0.5, as the peers make them', () => {
  const [first, second] = [0, 1].map((tensor) => fill(new Float32Array(10_000), tensor));
  assert.ok(first.every((x) => x >= -0.5 && x < 0.5));
  assert.ok(Math.abs(first.reduce((a, b) => a + b) / first.length) < 0.02);
  assert.ok(first.filter((x, i) => x === second[i]).length < 3);
});

test('the median is the middle', () => {
  assert.equal([median([3, 1, 2]), median([4, 1, 2, 3])], [2, 2.5]);
});

test.run();
