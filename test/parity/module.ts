import type { TypedArray } from '../../lib/graph/dtype.ts';
import { grad, reachable } from '../../lib/graph/grad.ts';
import { add, mul } from '../../lib/graph/ops/elementwise.ts';
import { transpose } from '../../lib/graph/ops/layout.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { sameShape, type Tensor } from '../../lib/graph/tensor.ts';
import { type Module, withDType } from '../../lib/nn/module.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { loadWeights } from '../../lib/weights/load.ts';
import type { Golden } from './golden.ts';
import { limits, norm, type Report, relativeError } from './report.ts';

/** A module traced for a file: its feeds (by `in.` key) and its outputs (by name), in the file's layout. */
export interface Traced {
  module: Module;
  feeds: Record<string, Tensor>;
  outputs: Record<string, Tensor>;
}

/** The file's images are NCHW, the graph's NHWC. */
export const toNhwc = (x: Tensor): Tensor => transpose(x, [0, 2, 3, 1]);
export const toNchw = (x: Tensor): Tensor => transpose(x, [0, 3, 1, 2]);

/** Compares a module's outputs, loss and gradients, and the outputs once more with frozen (packed) weights. */
export async function compareModule(
  device: Device,
  golden: Golden,
  trace: (golden: Golden) => Traced,
  report: Report,
): Promise<void> {
  const traced = trace(golden);
  const values = await computeAll(device, golden, traced);
  for (const name of golden.keys('out.')) {
    if (name === 'loss') continue;
    await compareOutput(golden, traced, name, values, '', report);
  }
  await compareLoss(golden, traced, values, report);
  const { gradients, note } = await judgedGradients(device, golden, trace, traced, values);
  for (const name of golden.keys('grad.in.')) {
    const error = relativeError(gradients[`grad.in.${name}`] ?? [], await golden.read(`grad.in.${name}`));
    report.add(`${golden.name} grad.in.${name}`, error, limits.inputGrad, note);
  }
  await compareWeightGradients(golden, gradients, report, note);
  const frozen = await computeFrozen(device, golden, traced);
  for (const name of golden.keys('out.')) {
    if (name !== 'loss') await compareOutput(golden, traced, name, frozen, ' (frozen weights)', report);
  }
}

export type Values = Record<string, TypedArray>;

/**
 * The gradients to compare: those of float32, or, where float32 decides otherwise than float64, those of float64. A leaky
 * ReLU decides by its input's sign, a maximum by which of its inputs is largest. Where two inputs lie within rounding of each
 * other, the two sides have different derivatives, so two correct float32 programs may differ there by far more than
 * rounding; the reference's own float32 gradients are within the limits of float64's.
 */
async function judgedGradients(
  device: Device,
  golden: Golden,
  trace: (golden: Golden) => Traced,
  traced: Traced,
  values: Values,
): Promise<{ gradients: Values; note: string }> {
  const kinks = kinksOf(traced);
  if (!kinks.length) return { gradients: values, note: '' };
  const wide = golden.widened();
  const oracle = withDType('f64', () => trace(wide));
  const inputs = (of: Kink[]) => Object.fromEntries(of.map(({ x }, i) => [String(i), x]));
  const narrow = await compute(device, golden, traced.module, inputs(kinks), Object.keys(traced.feeds), false);
  using cpu = await openDevice('cpu'); // the one with float64
  const exact = await compute(cpu, wide, oracle.module, inputs(kinksOf(oracle)), Object.keys(oracle.feeds), false);
  let [count, crossed] = [0, 0];
  for (const [i, { decisions }] of kinks.entries()) {
    const [ours, theirs] = [decisions(narrow[i]), decisions(exact[i])];
    for (let k = 0; k < ours.length; k++) if (ours[k] !== theirs[k]) crossed++;
    count += ours.length;
  }
  if (!crossed) return { gradients: values, note: '' };
  const note = `in float64: ${crossed} of ${count} decisions fall the other way in float32`;
  return { gradients: await computeAll(cpu, wide, oracle), note };
}

/** A tensor whose values decide which derivative counts, and how. */
interface Kink {
  x: Tensor;
  decisions(values: TypedArray): ArrayLike<number>;
}

function kinksOf({ outputs }: Traced): Kink[] {
  return reachable(Object.values(outputs)).flatMap(({ op, inputs, attrs }) => {
    const x = inputs[0]!;
    if (op === 'leakyRelu') return { x, decisions: (values) => Uint8Array.from(values, (v) => Number(v > 0)) };
    if (op === 'maxPool2d') return { x, decisions: (values) => winners(x, attrs.kernel as number[], values) };
    return [];
  });
}

/** For each window and channel of a pooling without overlap or padding, which of its pixels is the largest. */
function winners({ shape: [n, h, w, c] }: Tensor, [kh, kw]: number[], values: TypedArray): number[] {
  const found: number[] = [];
  for (let image = 0; image < n; image++) {
    for (let y = 0; y + kh <= h; y += kh) {
      for (let x = 0; x + kw <= w; x += kw) {
        for (let channel = 0; channel < c; channel++) {
          let [best, at] = [-Infinity, 0];
          for (let k = 0; k < kh * kw; k++) {
            const v = values[((image * h + y + Math.floor(k / kw)) * w + x + (k % kw)) * c + channel];
            if (v > best) [best, at] = [v, k];
          }
          found.push(at);
        }
      }
    }
  }
  return found;
}

async function computeAll(device: Device, golden: Golden, { module, feeds, outputs }: Traced): Promise<Values> {
  const cotangents: Record<string, Tensor> = {};
  const terms: Tensor[] = [];
  for (const [name, output] of Object.entries(outputs)) {
    const key = `in.cotangent.${name}`;
    if (!golden.has(key)) continue;
    cotangents[key] = golden.feed(key);
    terms.push(sum(mul(output, cotangents[key])));
  }
  const loss = terms.reduce(add);
  const results: Record<string, Tensor> = { loss };
  for (const [name, output] of Object.entries(outputs)) results[`out.${name}`] = output;
  const inputs = golden.keys('grad.in.').filter((name) => feeds[`in.${name}`]);
  const parameters = [...module.namedParameters()];
  const grads = grad(loss, [...inputs.map((name) => feeds[`in.${name}`]), ...parameters.map(([, { value }]) => value)]);
  inputs.forEach((name, i) => {
    results[`grad.in.${name}`] = grads[i];
  });
  parameters.forEach(([key], i) => {
    results[`grad.weights.${key}`] = grads[inputs.length + i];
  });
  return compute(device, golden, module, results, [...Object.keys(feeds), ...Object.keys(cotangents)], false);
}

function computeFrozen(device: Device, golden: Golden, { module, feeds, outputs }: Traced): Promise<Values> {
  const results = Object.fromEntries(Object.entries(outputs).map(([name, output]) => [`out.${name}`, output]));
  return compute(device, golden, module, results, Object.keys(feeds), true);
}

export async function compute(
  device: Device,
  golden: Golden,
  module: Module,
  results: Record<string, Tensor>,
  feeds: string[],
  frozen: boolean,
): Promise<Values> {
  using parameters = device.parameters();
  await loadWeights(parameters, module, golden.file, { prefix: 'weights.', frozen });
  return evaluate(device, results, await golden.values(feeds), parameters);
}

async function compareOutput(
  golden: Golden,
  { outputs }: Traced,
  name: string,
  values: Values,
  how: string,
  report: Report,
): Promise<void> {
  const label = `${golden.name} out.${name}${how}`;
  const output = outputs[name];
  if (!output) return report.fail(label, 'this module computes no such output');
  const shape = golden.shape(`out.${name}`);
  if (!sameShape(output.shape, shape)) return report.fail(label, `shape [${output.shape}], expected [${shape}]`);
  report.add(label, relativeError(values[`out.${name}`], await golden.read(`out.${name}`)), limits.output);
}

/** The loss sums products of either sign: its error counts against the size of the terms, not of what they leave. */
async function compareLoss(golden: Golden, { outputs }: Traced, values: Values, report: Report): Promise<void> {
  if (!golden.has('out.loss')) return;
  const [expected] = await golden.read('out.loss');
  let terms = 0;
  for (const name of Object.keys(outputs)) {
    if (!golden.has(`in.cotangent.${name}`)) continue;
    const cotangent = await golden.read(`in.cotangent.${name}`);
    terms += norm((await golden.read(`out.${name}`)).map((v, i) => v * cotangent[i])) ** 2;
  }
  const scale = Math.max(Math.abs(expected), Math.sqrt(terms));
  report.add(`${golden.name} out.loss`, relativeError(values.loss, [expected], scale), limits.output);
}

/**
 * Stored gradients one by one; of all others the norm and a projection. Gradients that are zero in theory are noise in
 * the file, so they only must be small beside the largest one. `loss` is what the keys carry where a file has several.
 */
export async function compareWeightGradients(
  golden: Golden,
  values: Values,
  report: Report,
  note = '',
  loss = '',
): Promise<void> {
  const zero = new Set(golden.json<string[]>('analytically_zero_grad_names', []));
  for (const name of golden.keys(`grad.${loss}weights.`)) {
    if (zero.has(name)) continue;
    const key = `grad.${loss}weights.${name}`;
    const error = relativeError(values[`grad.weights.${name}`] ?? [], await golden.read(key));
    report.add(`${golden.name} ${key}`, error, limits.weightGrad, note);
  }
  const stat = `gradstat.${loss}`;
  if (!golden.has(`${stat}l2`)) return;
  const names = golden.json<string[]>('gradstat_names');
  const [l2, proj] = [await golden.read(`${stat}l2`), await golden.read(`${stat}proj`)];
  const largest = Math.max(...l2);
  const worst = { l2: new Worst(), proj: new Worst(), zero: new Worst() };
  names.forEach((name, i) => {
    const gradient = values[`grad.weights.${name}`] ?? [Number.NaN];
    const length = norm(gradient);
    if (zero.has(name)) {
      worst.zero.see(length / largest, name);
    } else {
      worst.l2.see(Math.abs(length - l2[i]) / l2[i], name);
      worst.proj.see(Math.abs(projection(gradient) - proj[i]) / l2[i], name);
    }
  });
  const count = names.length - zero.size;
  report.add(`${golden.name} ${stat}l2`, worst.l2.error, limits.weightGrad, `worst of ${count}: ${worst.l2.name}`);
  report.add(
    `${golden.name} ${stat}proj`,
    worst.proj.error,
    limits.weightGrad,
    `worst of ${count}: ${worst.proj.name}`,
  );
  if (zero.size) {
    report.add(
      `${golden.name} ${stat} zero in theory`,
      worst.zero.error,
      1e-5,
      `worst of ${zero.size}: ${worst.zero.name}`,
    );
  }
}

class Worst {
  error = 0;
  name = '';

  see(error: number, name: string): void {
    if (error <= this.error) return;
    this.error = error;
    this.name = name;
  }
}

/** What the files store of every gradient: sum over j of g[j] cos(0.37 j). */
export function projection(values: ArrayLike<number>): number {
  let total = 0;
  for (let j = 0; j < values.length; j++) total += values[j] * Math.cos(0.37 * j);
  return total;
}
