import { grad } from '../../lib/graph/grad.ts';
import { geglu, gelu, quickGelu, silu } from '../../lib/graph/ops/activation.ts';
import { attention } from '../../lib/graph/ops/attention.ts';
import { haarWavelet, l2Normalize, timestepEmbedding } from '../../lib/graph/ops/compose.ts';
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { cast, leakyRelu, relu } from '../../lib/graph/ops/elementwise.ts';
import { embedding } from '../../lib/graph/ops/embedding.ts';
import { type PadMode, pad, pixelUnshuffle, reshape, transpose } from '../../lib/graph/ops/layout.ts';
import { linear } from '../../lib/graph/ops/matmul.ts';
import { groupNorm, layerNorm } from '../../lib/graph/ops/norm.ts';
import { avgPool2d, maxPool2d } from '../../lib/graph/ops/pool.ts';
import { type ResizeMode, resize } from '../../lib/graph/ops/resample.ts';
import { cosineSimilarity, crossEntropy, l1Loss, mseLoss } from '../../lib/graph/ops/reward.ts';
import { logSoftmax, softmax } from '../../lib/graph/ops/softmax.ts';
import { sameShape, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { toNchw, toNhwc } from './module.ts';
import { adamwCase, clipCase } from './optim.ts';
import { limits, maxAbs, type Report, relativeError } from './report.ts';

/** What the file's header says of a case; `op` is a phrase, the rest are attributes. */
export interface Attributes {
  op: string;
  stride?: number;
  padding?: number;
  groups?: number;
  eps?: number;
  dim?: number;
  size?: [number, number];
  antialias?: boolean;
}

/** Inputs of a case by name. */
type Inputs = Record<string, Tensor>;
type Build = (inputs: Inputs, attributes: Attributes) => Tensor | Record<string, Tensor>;

/** An operator on images, between the file's NCHW and the graph's NHWC. */
const onImage =
  (fn: (x: Tensor, inputs: Inputs, attributes: Attributes) => Tensor): Build =>
  (inputs, attributes) =>
    toNchw(fn(toNhwc(inputs.x), inputs, attributes));

/** The number behind `word` in a phrase, or 0. */
const numberAfter = (phrase: string, word: string): number =>
  Number(phrase.match(new RegExp(`${word} ([\\d.]+)`))?.[1] ?? 0);

const pair = (n: number): [number, number] => [n, n];

/** Pads by the sides a phrase names ("right 5 bottom 3"), or on all four by its one number. */
function padBy(x: Tensor, phrase: string, mode: PadMode): Tensor {
  const all = numberAfter(phrase, 'pad');
  const side = (name: string): number => numberAfter(phrase, name) || all;
  return pad(x, [0, side('top'), side('left'), 0], [0, side('bottom'), side('right'), 0], mode);
}

function attend({ q, k, v, bias }: Inputs, { op }: Attributes): Tensor {
  const [n, heads, lq, d] = q.shape;
  const tokens = (t: Tensor): Tensor => reshape(transpose(t, [0, 2, 1, 3]), [n, t.shape[2], heads * t.shape[3]]);
  const y = attention(tokens(q), tokens(k), tokens(v), { heads, bias, causal: op.includes('causal') });
  return transpose(reshape(y, [n, lq, heads, v.shape[3] ?? d]), [0, 2, 1, 3]);
}

/** Which phrase of the header means which operator: the first that matches. */
const builds: readonly (readonly [RegExp, Build])[] = [
  [
    /^conv2d/,
    onImage((x, { w, b }, { op, stride, padding = 0 }) => {
      const zeros = op.includes('zero padding')
        ? ([0, 0, numberAfter(op, 'bottom'), numberAfter(op, 'right')] as const)
        : padding;
      return conv2d(x, w, b, { stride, padding: zeros });
    }),
  ],
  [/^group_norm/, onImage((x, { w, b }, { groups, eps }) => groupNorm(x, w, b, { groups: groups!, eps: eps! }))],
  [/^layer_norm/, ({ x, w, b }, { eps }) => layerNorm(x, w, b, { eps: eps! })],
  [/^silu/, ({ x }) => silu(x)],
  [/^gelu/, ({ x }) => gelu(x)],
  [/sigmoid\(1\.702x\)/, ({ x }) => quickGelu(x)],
  [/^relu/, ({ x }) => relu(x)],
  [/^leaky_relu/, ({ x }, { op }) => leakyRelu(x, numberAfter(op, 'slope'))],
  [/^linear to 2\*n/, ({ x, w, b }) => geglu(linear(x, w, b))],
  [/^first half times gelu/, ({ h }) => geglu(h)],
  [/^linear/, ({ x, w, b }) => linear(x, w, b)],
  [/^softmax last/, ({ x }) => softmax(x)],
  [/^log_softmax/, ({ x }) => logSoftmax(x)],
  [/^softmax\(q|^same with causal/, attend],
  [
    /^interpolate/,
    onImage((x, _, { op, size, antialias }) => resize(x, size!, { mode: op.split(' ')[1] as ResizeMode, antialias })),
  ],
  [
    /^nearest/,
    onImage((x, _, { op }) => {
      const factor = Number(op.match(/(\d+)x/)![1]);
      return resize(x, [x.shape[1] * factor, x.shape[2] * factor], { mode: 'nearest' });
    }),
  ],
  [/^avg_pool2d/, onImage((x, _, { op }) => avgPool2d(x, { kernel: pair(numberAfter(op, 'avg_pool2d')) }))],
  [
    /^max_pool2d/,
    onImage((x, _, { op }) => {
      const kernel = numberAfter(op, 'max_pool2d');
      return maxPool2d(x, { kernel: pair(kernel), stride: pair(numberAfter(op, 'stride') || kernel) });
    }),
  ],
  [/^pixel_unshuffle/, onImage((x, _, { op }) => pixelUnshuffle(x, numberAfter(op, 'pixel_unshuffle')))],
  [/^reflect pad/, onImage((x, _, { op }) => padBy(x, op, 'reflect'))],
  [/^replicate pad/, onImage((x, _, { op }) => padBy(x, op, 'replicate'))],
  [
    /Haar/,
    ({ x }) => {
      const { ll, lh, hl, hh } = haarWavelet(toNhwc(x));
      return { ll: toNchw(ll), lh_horizontal_detail: toNchw(lh), hl_vertical_detail: toNchw(hl), hh: toNchw(hh) };
    },
  ],
  [/^cosine_similarity/, ({ a, b }) => cosineSimilarity(a, b)],
  [/normalize/, ({ a }) => l2Normalize(a)],
  [/^mean squared/, ({ a, b }) => reshape(mseLoss(a, b), [1])],
  [/^mean absolute/, ({ a, b }) => reshape(l1Loss(a, b), [1])],
  [/^cross entropy/, ({ s, y }) => reshape(crossEntropy(s, y), [1])],
  [/^row look-up/, ({ w, ids }) => embedding(w, ids)],
  [/timestep_embedding/, ({ t }, { dim }) => timestepEmbedding(cast(t, 'f32'), dim!)],
];

/** Compares every case of a file of single operators: outputs and gradients. */
export async function compareOps(device: Device, golden: Golden, report: Report): Promise<void> {
  for (const [name, attributes] of Object.entries(golden.json<Record<string, Attributes>>('cases'))) {
    const label = `${golden.name} ${name}`;
    try {
      if (attributes.op.includes('AdamW')) await adamwCase(device, golden, name, attributes, report);
      else if (attributes.op.startsWith('clip_grad_norm')) await clipCase(device, golden, name, attributes, report);
      else await compareCase(device, golden, name, attributes, report);
    } catch (error) {
      report.fail(label, (error as Error).message);
    }
  }
}

async function compareCase(
  device: Device,
  golden: Golden,
  name: string,
  attributes: Attributes,
  report: Report,
): Promise<void> {
  const build = builds.find(([phrase]) => phrase.test(attributes.op))?.[1];
  if (!build) throw new Error(`no operator is known for "${attributes.op}"`);
  const keys = golden.keys(`in.${name}.`).filter((key) => !key.startsWith('cotangent.'));
  const inputs = Object.fromEntries(keys.map((key) => [key, golden.feed(`in.${name}.${key}`)]));
  const built = build(inputs, attributes);
  const outputs = 'node' in built ? { y: built as Tensor } : built;

  const results: Record<string, Tensor> = {};
  for (const [key, output] of Object.entries(outputs)) results[`out.${name}.${key}`] = output;
  const feeds = keys.map((key) => `in.${name}.${key}`);
  const wanted = golden.keys(`grad.${name}.`);
  if (wanted.length) {
    const cotangents = Object.keys(outputs).map((key) => golden.feed(`in.${name}.cotangent.${key}`));
    feeds.push(...Object.keys(outputs).map((key) => `in.${name}.cotangent.${key}`));
    const grads = grad(
      Object.values(outputs),
      wanted.map((key) => inputs[key]),
      cotangents,
    );
    wanted.forEach((key, i) => {
      results[`grad.${name}.${key}`] = grads[i];
    });
  }
  const values = await evaluate(device, results, await golden.values(feeds));

  for (const key of golden.keys(`out.${name}.`)) {
    const full = `out.${name}.${key}`;
    if (!results[full] || !sameShape(results[full].shape, golden.shape(full))) {
      report.fail(
        `${golden.name} ${full}`,
        `got ${results[full] ?? 'no such output'}, expected [${golden.shape(full)}]`,
      );
    } else {
      report.add(`${golden.name} ${full}`, relativeError(values[full], await golden.read(full)), limits.op);
    }
  }
  await compareGradients(golden, name, wanted, values, report);
}

/** A gradient that vanishes in theory is rounding noise on both sides: it counts against the case's largest. */
async function compareGradients(
  golden: Golden,
  name: string,
  wanted: readonly string[],
  values: Record<string, ArrayLike<number>>,
  report: Report,
): Promise<void> {
  const expected = await golden.values(wanted.map((key) => `grad.${name}.${key}`));
  const largest = Math.max(0, ...Object.values(expected).map(maxAbs));
  for (const [key, reference] of Object.entries(expected)) {
    const size = maxAbs(reference);
    report.add(
      `${golden.name} ${key}`,
      relativeError(values[key], reference, size < 1e-5 * largest ? largest : size),
      limits.op,
    );
  }
}
