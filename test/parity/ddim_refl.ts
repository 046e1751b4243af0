import { predictClean, weightedSum } from '../../lib/diffusion/denoise.ts';
import { ddimSteps, levelsOf } from '../../lib/diffusion/steps.ts';
import { grad } from '../../lib/graph/grad.ts';
import { add, affine, tanh } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { linear } from '../../lib/graph/ops/matmul.ts';
import { mean } from '../../lib/graph/ops/reduce.ts';
import { cosineSimilarity, l1Loss } from '../../lib/graph/ops/reward.ts';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { toNchw, toNhwc } from './module.ts';
import { type Report, relativeError } from './report.ts';

/** Of ../shared/golden/README.md. */
const limit = 5e-6;

interface Config {
  k: number;
  weights: { cos: number; l1: number };
  timesteps: number[];
}

/** The gradient of a reward through one DDIM step, with a channel mix for the network and a saturation for the decoder. */
export async function compareDdimRefl(device: Device, golden: Golden, report: Report): Promise<void> {
  const { k, weights, timesteps } = golden.json<Config>('config');
  // The reference's schedule is float32, which at t = 1 moves sqrt(1 - alpha) by more than the limit.
  const alphas = Float64Array.from(await golden.read('in.alphas_cumprod'));
  const levels = levelsOf(alphas, [...timesteps, 0]);
  const steps = ddimSteps(levels, 'eps');
  const W = golden.feed('in.W');
  // Steps before the last are not differentiated: they see the same network as a constant.
  const frozen = constant(await golden.read('in.W'), W.shape, W.dtype);
  const [P, reference] = [golden.feed('in.P'), golden.feed('in.ref_features')];
  const target = toNhwc(golden.feed('in.target'));
  const outputs: Record<string, Tensor> = {};
  const used = ['in.W', 'in.P', 'in.ref_features', 'in.target'];

  for (const name of new Set(golden.keys('out.').map((key) => key.split('.')[0]))) {
    const [given] = golden.keys(`in.${name}.x_`);
    used.push(`in.${name}.x_${given}`);
    let x = toNhwc(golden.feed(`in.${name}.x_${given}`));
    const step = (t: number, network: Tensor): { eps: Tensor; x0: Tensor; next: Tensor } => {
      const eps = linear(x, network);
      const at = constant(new Int32Array(x.shape[0]).fill(t), [x.shape[0]], 'i32');
      const x0 = predictClean(x, eps, at, alphas, 'eps');
      const [state, clean] = steps[timesteps.indexOf(t)].next;
      return { eps, x0, next: weightedSum(constant(Float32Array.of(state, clean), [2], 'f32'), [x, x0]) };
    };
    let t = Number(given);
    for (const reached of golden.keys(`out.${name}.x_`).filter((key) => key !== 'prev')) {
      x = step(t, frozen).next;
      outputs[`out.${name}.x_${reached}`] = toNchw(x);
      t = Number(reached);
    }
    const { eps, x0, next } = step(t, W);
    const decoded = tanh(affine(x0, k));
    const features = linear(mean(decoded, [1, 2]), P);
    const cos = reshape(cosineSimilarity(features, reference), [x.shape[0]]);
    const [lossCos, lossL1] = [affine(mean(cos), -1, 1), l1Loss(decoded, target)];
    const loss = add(affine(lossCos, weights.cos), affine(lossL1, weights.l1));
    const images = { eps, x0, decoded, x_prev: next };
    for (const [key, value] of Object.entries(images)) outputs[`out.${name}.${key}`] = toNchw(value);
    Object.assign(outputs, {
      [`out.${name}.features`]: features,
      [`out.${name}.cos`]: cos,
      [`out.${name}.loss_cos`]: lossCos,
      [`out.${name}.loss_l1`]: lossL1,
      [`out.${name}.loss`]: loss,
    });
    const [byWeights, ...byImages] = grad(loss, [W, eps, x0, decoded]);
    outputs[`grad.${name}.W`] = byWeights;
    for (const [i, key] of ['eps', 'x0', 'decoded'].entries()) outputs[`grad.${name}.${key}`] = toNchw(byImages[i]);
  }
  const values = await evaluate(device, outputs, await golden.values(used));
  for (const key of [...golden.file.entries.keys()].filter((k) => /^(out|grad)\./.test(k))) {
    if (values[key]) report.add(`${golden.name} ${key}`, relativeError(values[key], await golden.read(key)), limit);
    else report.fail(`${golden.name} ${key}`, 'there is no such output here');
  }
}
