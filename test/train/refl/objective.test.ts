// The gradient of a whole training step of DiffBIR's form, at a small size and in float64.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { alphasCumprod } from '../../../lib/diffusion/schedule.ts';
import { ddimSteps, levelsOf, type Step } from '../../../lib/diffusion/steps.ts';
import type { DType, TypedArray } from '../../../lib/graph/dtype.ts';
import { grad } from '../../../lib/graph/grad.ts';
import { input, type Tensor } from '../../../lib/graph/tensor.ts';
import { OSEDiff } from '../../../lib/models/osediff.ts';
import { withDType } from '../../../lib/nn/module.ts';
import { type Device, evaluate, openDevice, type Parameters } from '../../../lib/runtime/index.ts';
import { type Objective, objective } from '../../../lib/train/refl/objective.ts';
import {
  lastSteps,
  lastStepsFeeds,
  restoredByControlLDM,
  restoredByOSEDiff,
} from '../../../lib/train/refl/restored.ts';
import { close, sameBits } from '../../support/assert.ts';
import { smallLatent } from '../../support/latent.ts';
import { batched, fill, judging, judgingFeeds, type Networks, networks, numbers, sides, terms } from './support.ts';

const test = suite<{ device: Device }>('objective', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu');
});
test.after(({ device }) => device.dispose());

const dtype: DType = 'f64';
const latent = [sides.latent, sides.latent, 2] as const;
const latentSize = latent.reduce((a, b) => a * b, 1);
/** The last steps of DDIM as DiffusionReward walks it: ..., 41, 21, 1. */
const steps = ddimSteps(levelsOf(alphasCumprod(), [41, 21, 1, 0]), 'eps', 0.5);

const made = (): Networks & { parameters: (device: Device) => Parameters } => {
  const all = networks(dtype);
  const parameters = (device: Device): Parameters => {
    const held = device.parameters();
    fill(held, all.model, 1);
    fill(held, all.frozen, 900, true);
    fill(held, all.lpips, 1200, true);
    fill(held, all.clip, 1300, true);
    return held;
  };
  return { ...all, parameters };
};

interface Traced {
  step: Objective;
  images: Tensor;
  weights: Tensor[];
}

/** The step for a batch of `n`, whose last `count` denoising steps have gradients. */
function traced({ model, frozen, lpips, clip }: Networks, n: number, count: number, recompute = false): Traced {
  const shape = [n, ...latent];
  const { images, drift } = restoredByControlLDM(model, {
    shape,
    count,
    dtype,
    hint: input('hint', shape, dtype),
    context: input('context', [n, 5, 6], dtype),
    frozen,
    options: { recompute },
  });
  const step = objective({ images, ...judging(n, dtype) }, terms({ clip, lpips }), { weight: 1e-4, pairs: drift });
  return { step, images, weights: [...model.controlnet.namedParameters().values()].map(({ value }) => value) };
}

const widened = (values: TypedArray): TypedArray =>
  values instanceof Float32Array ? Float64Array.from(values) : values;

/** Feeds for the i-th image. */
function feedsOf(
  i: number,
  walked: readonly Step[] = steps.slice(-1),
  x = numbers(7 + i, latentSize),
): Record<string, TypedArray> {
  const noise = walked.map((_, k) => numbers(50 + 10 * i + k, latentSize) as Float32Array);
  const entry = lastStepsFeeds([{ x: Float32Array.from(x), steps: walked, noise }]);
  return {
    ...Object.fromEntries(Object.entries(entry).map(([name, values]) => [name, widened(values)])),
    hint: numbers(20 + i, latentSize, dtype),
    context: numbers(30 + i, 30, dtype),
    ...judgingFeeds(i, dtype),
  };
}

const named = (tensors: readonly Tensor[]): Record<string, Tensor> =>
  Object.fromEntries(tensors.map((t, i) => [String(i), t]));
const inOrder = (values: Record<string, TypedArray>, count: number): TypedArray[] =>
  Array.from({ length: count }, (_, i) => values[String(i)]);

/** A random way through `weights`: the difference quotient of `loss` along it, and what `gradients`, by index, say. */
async function alongAWay(
  parameters: Parameters,
  weights: readonly Tensor[],
  gradients: Record<string, TypedArray>,
  loss: () => Promise<number>,
): Promise<{ quotient: number; expected: number }> {
  const before = await Promise.all(weights.map((leaf) => parameters.read(leaf)));
  const ways = weights.map((leaf, i) => numbers(400 + i, leaf.size, dtype));
  let expected = 0;
  for (const [i, way] of ways.entries()) {
    for (const [k, d] of way.entries()) expected += d * Number(gradients[String(i)][k]);
  }
  const at = async (shift: number): Promise<number> => {
    for (const [i, leaf] of weights.entries()) {
      parameters.write(leaf, before[i].map((v, k) => Number(v) + shift * ways[i][k]) as TypedArray);
    }
    return loss();
  };
  const h = 1e-7;
  console.error(h, ((await at(h)) - (await at(-h))) / (2 * h), expected);
  return { quotient: ((await at(h)) - (await at(-h))) / (2 * h), expected };
}

for (const count of [1, 2]) {
  test(`with ${count} steps it is the difference quotient of the weighted losses`, async ({ device }) => {
    const all = made();
    using parameters = all.parameters(device);
    const { step, images, weights } = traced(all, 2, count);
    // The frozen copy's features are constants to the gradient, which they are to a quotient only behind a state that is fed.
    const whole = count === 1 ? step : objective({ images, ...judging(2, dtype) }, terms(all));
    const gradients = whole.gradients(weights);
    const feeds = batched([0, 1].map((i) => feedsOf(i, steps.slice(-count))));
    const outputs = { ...named(gradients), total: whole.losses.total };
    using program = await device.compile({ outputs }, { parameters });
    const values = await program.run(feeds);
    const { quotient, expected } = await alongAWay(parameters, weights, values, async () =>
      Number((await program.run(feeds)).total[0]),
    );
    assert.ok(Math.abs(expected) > 1e-6, `too flat to tell: ${expected}`);
    assert.ok(Math.abs(quotient / expected - 1) < 1e-5, `${quotient} for ${expected}`);
  });
}

test('the losses add up, and their gradients are measured at the images and at the features', async ({ device }) => {
  const all = made();
  using parameters = all.parameters(device);
  const { step, images, weights } = traced(all, 1, 1);
  const plain = grad(step.losses.total, weights);
  const [pull] = grad(step.losses.wavelet, [images]);
  const outputs = { ...step.losses, pull, ...named(step.gradients(weights)) };
  const norms = Object.fromEntries(Object.entries(step.norms).map(([name, norm]) => [`norm.${name}`, norm]));
  const whole = Object.fromEntries(plain.map((g, i) => [`plain.${i}`, g]));
  const values = await evaluate(device, { ...outputs, ...norms, ...whole }, feedsOf(0), parameters);
  const value = (name: string): number => Number(values[name][0]);
  const sum = 0.005 * value('reward') + 0.01 * (value('lpips') + value('wavelet')) + 1e-4 * value('drift');
  assert.ok(Math.abs(value('total') - sum) < 1e-15);
  const length = Math.hypot(...(values.pull as Float64Array));
  assert.ok(length > 0 && Math.abs(value('norm.wavelet') / (0.01 * length) - 1) < 1e-12);
  for (const name of ['reward', 'lpips', 'wavelet', 'drift']) assert.ok(value(`norm.${name}`) > 0, name);
  plain.forEach((_, i) => {
    close(values[String(i)] as Float64Array, values[`plain.${i}`] as Float64Array, 1e-11, `gradient ${i}`);
  });
});

test('one step with a gradient is the whole chain whose earlier steps are detached', async ({ device }) => {
  const all = made();
  const { model: before } = networks(dtype);
  using parameters = all.parameters(device);
  fill(parameters, before, 1, true); // the same values, which are no variables
  const shape = [1, ...latent];
  const condition = { hint: input('hint', shape, dtype), context: input('context', [1, 5, 6], dtype) };
  const weights = [...all.model.controlnet.namedParameters().values()].map(({ value }) => value);
  const clean = lastSteps({ shape, count: 3, dtype }, (x, timesteps, last) =>
    (last ? all.model : before).predict(x, timesteps, condition),
  );
  const chain = objective({ images: all.model.decode(clean), ...judging(1, dtype) }, terms(all));
  const feeds = feedsOf(0, steps);
  const expected = await evaluate(device, named(chain.gradients(weights)), feeds, parameters);

  const output = before.predict(input('x', shape, dtype), input('timesteps', [1], 'i32'), condition);
  using program = await device.compile({ outputs: { output } }, { parameters });
  const { fround } = Math; // weights are fed in float32
  let x = feeds.x as Float64Array;
  for (const [i, { timestep, clean, next }] of steps.slice(0, 2).entries()) {
    const { hint, context } = feeds;
    const predicted = (await program.run({ x, hint, context, timesteps: Int32Array.of(timestep) })).output;
    const noise = feeds[`noise.${i}`];
    x = x.map((v, k) => {
      const estimate = fround(clean[0]) * v + fround(clean[1]) * Number(predicted[k]);
      return fround(next[0]) * v + fround(next[1]) * estimate + fround(next[2]) * Number(noise[k]);
    });
  }
  const alone = objective({ images: traced(all, 1, 1).images, ...judging(1, dtype) }, terms(all));
  const values = await evaluate(device, named(alone.gradients(weights)), { ...feedsOf(0), x }, parameters);
  inOrder(values, weights.length).forEach((g, i) => {
    close(g as Float64Array, expected[String(i)] as Float64Array, 1e-9, `gradient ${i}`);
  });
});

test('a batch of four is the mean of its images', async ({ device }) => {
  const all = made();
  using parameters = all.parameters(device);
  const [four, one] = [traced(all, 4, 1), traced(all, 1, 1)];
  const feeds = [0, 1, 2, 3].map((i) => feedsOf(i));
  const together = await evaluate(device, named(four.step.gradients(four.weights)), batched(feeds), parameters);
  using program = await device.compile({ outputs: named(one.step.gradients(one.weights)) }, { parameters });
  const apart: Record<string, TypedArray>[] = [];
  for (const feed of feeds) apart.push(await program.run(feed));
  four.weights.forEach((_, i) => {
    const mean = Float64Array.from(apart[0][String(i)], (_v, k) => {
      return apart.reduce((sum, values) => sum + Number(values[String(i)][k]), 0) / 4;
    });
    close(together[String(i)] as Float64Array, mean, 1e-12, `gradient ${i}`);
  });
});

test('without a weight there is nothing to train by', () => {
  const { lpips, clip } = networks(dtype);
  const images = input('images', [1, sides.image, sides.image, 3], dtype);
  const { wavelet } = terms({ clip, lpips });
  assert.throws(
    () => objective({ images, ...judging(1, dtype) }, { wavelet: { ...wavelet, weight: 0 } }),
    (error: Error & { code: string }) => error.code === 'ERR_OPTION',
  );
});

test('recomputed blocks give the same bits', async ({ device }) => {
  const all = made();
  using parameters = all.parameters(device);
  const runs: { peak: number; values: TypedArray[] }[] = [];
  for (const recompute of [false, true]) {
    const { step, weights } = traced(all, 1, 1, recompute);
    using program = await device.compile({ outputs: named(step.gradients(weights)) }, { parameters });
    runs.push({ peak: program.peakBytes, values: inOrder(await program.run(feedsOf(0)), weights.length) });
  }
  assert.ok(runs[1].peak < runs[0].peak, `${runs[1].peak} bytes, ${runs[0].peak} without`);
  runs[0].values.forEach((g, i) => {
    sameBits(g, runs[1].values[i], `gradient ${i}`);
  });
});

test("OSEDiff's step moves its adapters, and drifts from nothing at first", async ({ device }) => {
  const { lpips, clip } = networks(dtype);
  const [model, frozen] = withDType(dtype, () => [0, 1].map(() => new OSEDiff(smallLatent, { unet: 2, vae: 2 })));
  using parameters = device.parameters();
  for (const [i, module] of [model, frozen].entries()) fill(parameters, module, 1, i === 1);
  fill(parameters, lpips, 1200, true);
  fill(parameters, clip, 1300, true);
  const { images, drift } = restoredByOSEDiff(model, {
    degraded: input('degraded', [1, sides.image, sides.image, 3], dtype),
    context: input('context', [1, 5, 6], dtype),
    noise: input('noise', [1, ...latent], dtype),
    frozen,
  });
  const { losses, gradients } = objective({ images, ...judging(1, dtype) }, terms({ clip, lpips }), {
    weight: 1,
    pairs: drift,
  });
  const adapters = [...model.namedParameters()].filter(([key]) => /lora_[AB]/.test(key)).map(([, { value }]) => value);
  const outputs = { total: losses.total, drift: losses.drift, ...named(gradients(adapters)) };
  using program = await device.compile({ outputs }, { parameters });
  const feeds = {
    degraded: numbers(3, sides.image ** 2 * 3, dtype),
    context: numbers(30, 30, dtype),
    noise: numbers(4, latentSize, dtype),
    ...judgingFeeds(0, dtype),
  };
  const values = await program.run(feeds);
  assert.is(values.drift[0], 0);
  const drifted: number[] = [];
  const { quotient, expected } = await alongAWay(parameters, adapters, values, async () => {
    const { total, drift: apart } = await program.run(feeds);
    drifted.push(Number(apart[0]));
    return Number(total[0]);
  });
  assert.ok(Math.min(...drifted) > 0);
  assert.ok(Math.abs(expected) > 1e-6 && Math.abs(quotient / expected - 1) < 1e-5, `${quotient} for ${expected}`);
});

test('the prediction counts 0.0413 times at t = 1 and 0.1415 times at t = 21', async ({ device }) => {
  for (const [t, coefficient] of [
    [1, 0.0413],
    [21, 0.1415],
  ]) {
    const output = input('output', [1, 1, 1, 1], dtype);
    const clean = lastSteps({ shape: [1, 1, 1, 1], count: 1, dtype }, () => output);
    const [step] = ddimSteps(levelsOf(alphasCumprod(), [t, 0]), 'eps');
    const entry = lastStepsFeeds([{ x: Float32Array.of(1), steps: [step], noise: [] }]);
    const feeds = { x: Float64Array.of(1), 'clean.0': Float64Array.from(entry['clean.0']), output: Float64Array.of(0) };
    const [by] = grad(clean, [output]);
    const { y } = await evaluate(device, { y: by }, { 'clean.0': feeds['clean.0'] });
    assert.is(Number(y[0]).toFixed(4), (-coefficient).toFixed(4));
  }
});

test.run();
