import type { TypedArray } from '../../lib/graph/dtype.ts';
import { clipFactor } from '../../lib/graph/ops/compose.ts';
import { mul } from '../../lib/graph/ops/elementwise.ts';
import { adamw, globalNorm } from '../../lib/graph/ops/optim.ts';
import { input, parameterLeaf, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { limits, type Report, relativeError } from './report.ts';

interface AdamWAttributes {
  lr?: number;
  betas?: [number, number];
  eps?: number;
  weight_decay?: number;
}

/** AdamW over the parameters `<p>0` with the gradients `grad_<p>1`, `grad_<p>2`, ...; values and moments after each step. */
export async function adamwCase(
  device: Device,
  golden: Golden,
  name: string,
  { lr = 0, betas: [beta1, beta2] = [0, 0], eps, weight_decay: weightDecay = 0 }: AdamWAttributes,
  report: Report,
): Promise<void> {
  const names = golden
    .keys(`in.${name}.`)
    .filter((key) => /^[^_]+0$/.test(key))
    .map((key) => key.slice(0, -1));
  using parameters = device.parameters();
  const groups = [];
  for (const p of names) {
    const shape = golden.shape(`in.${name}.${p}0`);
    const [param, m, v] = [0, 1, 2].map(() => parameterLeaf(shape, 'f32'));
    parameters.add(param, { data: await golden.read(`in.${name}.${p}0`) });
    parameters.add(m);
    parameters.add(v);
    groups.push({ param, m, v, grad: input(p, shape), weightDecay });
  }
  const scalars = { lr: input('lr', [1]), step: input('step', [1]), scale: input('scale', [1]), ok: input('ok', [1]) };
  const update = adamw(scalars, groups, { beta1, beta2, eps });
  using program = await device.compile({ outputs: {}, updates: [update] }, { parameters });
  for (let step = 1; golden.has(`in.${name}.grad_${names[0]}${step}`); step++) {
    const feeds: Record<string, TypedArray> = {
      lr: Float32Array.of(lr),
      step: Float32Array.of(step),
      scale: Float32Array.of(1),
      ok: Float32Array.of(1),
    };
    for (const p of names) feeds[p] = await golden.read(`in.${name}.grad_${p}${step}`);
    await program.run(feeds);
    for (const [i, p] of names.entries()) {
      const { param, m, v } = groups[i];
      const stored: Record<string, Tensor> = {
        [`${p}${step}`]: param,
        [`exp_avg_${p}${step}`]: m,
        [`exp_avg_sq_${p}${step}`]: v,
      };
      for (const [key, leaf] of Object.entries(stored)) {
        const full = `out.${name}.${key}`;
        if (!golden.has(full)) continue;
        report.add(
          `${golden.name} ${full}`,
          relativeError(await parameters.read(leaf), await golden.read(full)),
          limits.op,
        );
      }
    }
  }
}

/** Gradients scaled so that their common norm is at most the phrase's `max_norm`. */
export async function clipCase(
  device: Device,
  golden: Golden,
  name: string,
  { op }: { op: string },
  report: Report,
): Promise<void> {
  const maxNorm = Number(op.match(/max_norm ([\d.]+)/)![1]);
  const keys = golden.keys(`in.${name}.`);
  const grads = keys.map((key) => golden.feed(`in.${name}.${key}`));
  const total = globalNorm(grads);
  const factor = clipFactor(total, maxNorm);
  const results: Record<string, Tensor> = { [`out.${name}.total`]: total };
  keys.forEach((key, i) => {
    results[`out.${name}.${key}`] = mul(grads[i], factor);
  });
  const values = await evaluate(device, results, await golden.values(keys.map((key) => `in.${name}.${key}`)));
  for (const key of golden.keys(`out.${name}.`)) {
    const full = `out.${name}.${key}`;
    report.add(`${golden.name} ${full}`, relativeError(values[full] ?? [], await golden.read(full)), limits.op);
  }
}
