// Official networks at full size against PyTorch's numbers. Their weights are made in memory, one tensor after another.
import { grad } from '../../lib/graph/grad.ts';
import { add, mul } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { type Shape, sameShape, type Tensor } from '../../lib/graph/tensor.ts';
import type { Module } from '../../lib/nn/module.ts';
import { type Device, evaluate, type Parameters } from '../../lib/runtime/index.ts';
import { beside, fillByFormula, readManifest } from './formula.ts';
import { Golden } from './golden.ts';
import { projection, type Values } from './module.ts';
import { maxAbs, norm, type Report, relativeError } from './report.ts';

/**
 * How far an output may be off: of its largest value, or `absolute`. With `norm` the whole of it may be off by that share of
 * its length and all but a thousandth of its elements by `error`: for gradients where a maximum or a ReLU may fall either way.
 */
export interface Limit {
  error: number;
  absolute?: boolean;
  norm?: number;
}

/** A network of a full-size file. */
export interface FullModel {
  /** Its parts, each with the manifest its weights follow. */
  parts: { module: Module; manifest: string; key(own: string): string }[];
  /** Values of parameters that the file holds instead, by own key. */
  stored?: Record<string, string>;
  /** By `in.` key. */
  feeds: Record<string, Tensor>;
  outputs: Record<string, Tensor>;
  /** What the host works out of the outputs, by name. */
  derive?(values: Values): Record<string, number[]>;
  limit(output: string): Limit;
}

/** Traces the network of `golden`; `weights` is the file whose configuration and weights it uses, often itself. */
export type FullTrace = (golden: Golden, weights: Golden) => FullModel;

export async function compareFull(device: Device, golden: Golden, trace: FullTrace, report: Report): Promise<void> {
  const of = golden.file.metadata.weights_of;
  const weights = of ? await Golden.open(beside(golden, `${of}.safetensors`)) : golden;
  const model = trace(golden, weights);
  const expected = golden.json<Record<string, { shape: Shape; stride?: number }>>('outputs');
  const all = { ...model.outputs, ...(of ? gradients(golden, model) : {}) };
  const wanted = Object.fromEntries(Object.keys(expected).flatMap((name) => (all[name] ? [[name, all[name]]] : [])));
  using parameters = device.parameters();
  await make(parameters, model, golden, weights);
  const feeds = [...Object.keys(model.feeds), ...golden.keys('in.cotangent.').map((name) => `in.cotangent.${name}`)];
  const values = await evaluate(device, wanted, await golden.values(feeds), parameters);
  const shapes: Record<string, Shape> = Object.fromEntries(Object.entries(wanted).map(([name, t]) => [name, t.shape]));
  for (const [name, derived] of Object.entries(model.derive?.(values) ?? {})) {
    values[name] = Float64Array.from(derived);
    shapes[name] = [derived.length];
  }
  for (const [name, { shape, stride = 1 }] of Object.entries(expected)) {
    const label = `${golden.name} out.${name}`;
    if (!shapes[name]) report.fail(label, 'this network computes no such output');
    else if (!sameShape(shapes[name], shape)) report.fail(label, `shape [${shapes[name]}], expected [${shape}]`);
    else await compareOutput(golden, model, name, stride, values, report);
  }
}

/** The loss, sum over all outputs with a cotangent of their product, and its gradients by the inputs. */
function gradients(golden: Golden, { feeds, outputs }: FullModel): Record<string, Tensor> {
  const loss = golden
    .keys('in.cotangent.')
    .map((name) => sum(mul(outputs[name], golden.feed(`in.cotangent.${name}`))))
    .reduce(add);
  const inputs = Object.keys(feeds).filter((key) => feeds[key].dtype === 'f32');
  const grads = grad(
    loss,
    inputs.map((key) => feeds[key]),
  );
  return {
    loss: reshape(loss, [1]),
    ...Object.fromEntries(inputs.map((key, i) => [`grad_${key.slice(3)}`, grads[i]])),
  };
}

/** Adds all parameters. They are no frozen ones, of which kernels would keep packed copies beside the values. */
async function make(parameters: Parameters, model: FullModel, golden: Golden, weights: Golden): Promise<void> {
  const gain = Number(golden.file.metadata.matrix_gain ?? weights.file.metadata.matrix_gain ?? 1);
  let scratch = new Float32Array(0);
  for (const { module, manifest: name, key } of model.parts) {
    const manifest = readManifest(golden, name);
    for (const [own, { value }] of module.namedParameters()) {
      const stored = model.stored?.[own];
      if (stored) {
        parameters.add(value, { data: await weights.read(stored) });
        continue;
      }
      if (scratch.length < value.size) scratch = new Float32Array(value.size);
      const data = scratch.subarray(0, value.size);
      fillByFormula(data, manifest, key(own), gain);
      parameters.add(value, { data });
    }
  }
}

async function compareOutput(
  golden: Golden,
  model: FullModel,
  name: string,
  stride: number,
  values: Values,
  report: Report,
): Promise<void> {
  const label = `${golden.name} out.${name}`;
  const ours = values[name];
  const theirs = await golden.read(golden.has(`out.${name}`) ? `out.${name}` : `out.${name}.sub`);
  if (name === 'loss') return compareLoss(golden, model, values, theirs[0], report);
  const { error: limit, absolute, norm: whole } = model.limit(name);
  const kept = ours.filter((_, i) => i % stride === 0);
  if (whole) {
    const apart = kept.map((v, i) => v - theirs[i]);
    report.add(`${label} (relative l2)`, norm(apart) / norm(theirs), whole);
    const largest = maxAbs(theirs);
    const far = apart.filter((d) => !(Math.abs(d) <= limit * largest)).length;
    report.add(`${label} (share of elements off by more than ${limit})`, far / apart.length, 1e-3);
  } else report.add(label, relativeError(kept, theirs, absolute ? 1 : undefined), limit);
  if (!golden.has(`out.${name}.stat`)) return; // whole numbers have none
  const [l2, proj] = await golden.read(`out.${name}.stat`);
  const scale = absolute ? 1 : l2;
  report.add(`${label}.stat l2`, Math.abs(norm(ours) - l2) / scale, whole ?? limit);
  report.add(`${label}.stat proj`, Math.abs(projection(ours) - proj) / scale, whole ?? limit);
}

/** A loss may be off by as much as its outputs may. */
async function compareLoss(
  golden: Golden,
  model: FullModel,
  values: Values,
  expected: number,
  report: Report,
): Promise<void> {
  let allowed = 0;
  for (const name of golden.keys('in.cotangent.')) {
    const cotangent = await golden.read(`in.cotangent.${name}`);
    const { error, absolute } = model.limit(name);
    allowed += error * norm(absolute ? cotangent : cotangent.map((c, i) => c * values[name][i]));
  }
  report.add(`${golden.name} out.loss`, Math.abs(values.loss[0] - expected), allowed, 'absolute');
}
