import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { OneStepRestorer } from '../../lib/diffusion/onestep.ts';
import { alphasCumprod } from '../../lib/diffusion/schedule.ts';
import { input } from '../../lib/graph/tensor.ts';
import { initialize } from '../../lib/nn/init.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { baseConfig } from '../../lib/train/base.ts';

test('cumulative alphas are those published for Stable Diffusion', () => {
  const alphas = alphasCumprod();
  assert.is(alphas.length, 1000);
  const published = { 0: 0.99915, 1: 0.99829603, 20: 0.98131436, 199: 0.75523836, 499: 0.27766965, 999: 0.0046601 };
  for (const [t, value] of Object.entries(published)) assert.ok(Math.abs(alphas[Number(t)] - value) < 1e-8, `t = ${t}`);
});

test('an untrained restorer, whose last layer is zero, only stretches the contrast by 1 / sqrt(alpha)', async () => {
  using device = await openDevice('cpu');
  using parameters = device.parameters();
  const model = new OneStepRestorer(baseConfig);
  await initialize(device, parameters, model, 3n);
  const side = 2 * model.multiple;
  const image = new Float32Array(side * side * 3).map((_, i) => 0.5 + 0.4 * Math.sin(i));
  const { y } = await evaluate(device, { y: model.forward(input('x', [1, side, side, 3])) }, { x: image }, parameters);
  const gain = 1 / Math.sqrt(alphasCumprod()[baseConfig.timestep]);
  const worst = Math.max(...image.map((v, i) => Math.abs(y[i] - (0.5 + gain * (v - 0.5)))));
  assert.ok(worst < 1e-6, `off by ${worst}`);
});

test.run();
