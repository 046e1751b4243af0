// What the bench counts and compares: a wrong count would make every figure wrong without any test noticing.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { sd21Noise } from '../../lib/bench/models.ts';
import { opBenches } from '../../lib/bench/ops.ts';
import { reflStepWork } from '../../lib/bench/refl_step.ts';
import { fill, median } from '../../lib/bench/timing.ts';
import { workOf } from '../../lib/bench/work.ts';
import { input } from '../../lib/graph/index.ts';
import { sd21 } from '../../lib/models/latent.ts';
import { UNet } from '../../lib/models/unet.ts';
import { paperWalk } from '../../lib/train/refl/rollout.ts';

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

test('a step of training by rewards comes to its parts', async () => {
  const paper = { side: 512, batch: 1, accumulate: 4, recompute: false, compute: 'bf16', walk: paperWalk } as const;
  const parts = new Map((await reflStepWork('diffbir-v1', paper)).map(({ name, flops }) => [name, flops / 2e9]));
  // UNet and ControlNet: 402.1 and 134.6 billion multiplications; encoder and SwinIR: 558.3 and 90.7; decoder: 1257.3.
  assert.ok(Math.abs(parts.get('49 steps without gradient')! / (49 * (402.1 + 134.6)) - 1) < 1e-3);
  assert.ok(Math.abs(parts.get('step with gradient')! / (402.1 + 134.6) - 1) < 1e-3);
  assert.ok(Math.abs(parts.get('condition')! / (558.3 + 90.7) - 1) < 1e-3);
  assert.ok(Math.abs(parts.get('decoder')! / 1257.3 - 1) < 1e-3);
  assert.ok(Math.abs(parts.get('frozen copy')! / 134.6 - 1) < 1e-3);
  const official = await reflStepWork('diffbir-v1', { ...paper, compat: 'official' });
  const unread = official.find(({ name }) => name === 'frozen copy, unread')!.flops / 2e9;
  assert.ok(Math.abs(unread / (49 * 134.6) - 1) < 1e-3);
  const all = (steps: readonly { flops: number }[]) => steps.reduce((sum, { flops }) => sum + flops, 0) / 2e9;
  assert.ok(Math.abs(all(official) - [...parts.values()].reduce((a, b) => a + b, 0) - unread) < 1);
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
