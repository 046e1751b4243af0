// What is measured on a GPU: the operators of Stable Diffusion 2.1, CLIP ViT-H/14, SwinIR and VGG16 at their shapes, and
// large products.

import { affine, type ConvShape, conv, dense, each, normed, type OpBench, operand } from '../../lib/bench/ops.ts';
import { workOf } from '../../lib/bench/work.ts';
import { grad } from '../../lib/graph/grad.ts';
import { geglu, gelu } from '../../lib/graph/ops/activation.ts';
import { attention } from '../../lib/graph/ops/attention.ts';
import { add } from '../../lib/graph/ops/elementwise.ts';
import { layerNorm } from '../../lib/graph/ops/norm.ts';
import { softmax } from '../../lib/graph/ops/softmax.ts';
import { parameterLeaf, type Tensor } from '../../lib/graph/tensor.ts';

/** An operator to measure: the one node of that name in what `operands` and `build` trace. */
export interface Shape {
  readonly name: string;
  readonly op: string;
  readonly family: OpBench['family'];
  /** Of the node, counted as a direct algorithm needs them. */
  readonly flops: number;
  readonly results: readonly Tensor[];
  /** The leaves that never change. */
  readonly frozen: ReadonlySet<Tensor>;
  /** The same job in the words of bench/cuda/pytorch.py. */
  readonly peer: string;
}

function shape(op: string, bench: OpBench): Shape {
  const leaves = bench.operands.map((it) => parameterLeaf(it.shape, 'f32'));
  const results = [bench.build(...leaves)];
  const frozen = new Set(leaves.filter((_, i) => bench.operands[i].frozen));
  const { name, family, peer } = bench;
  return { name, op, family, flops: workOf(results).flops, results, frozen, peer };
}

const convs = (op: string, pass: Parameters<typeof conv>[0], shapes: readonly ConvShape[]): Shape[] =>
  shapes.map((it) => shape(op, conv(pass, pass === 'weight' ? 'trainable' : 'frozen', it)));

const linears = (shapes: readonly [rows: number, inputs: number, outputs: number][]): Shape[] =>
  shapes.map((it) => shape('linear', dense('forward', 'frozen', ...it)));

interface Heads {
  batch?: number;
  heads: number;
  queries: number;
  keys?: number;
  width: number;
}

/** The forward pass, or all three gradients. */
function attend(pass: 'forward' | 'backward', { batch = 1, heads, queries, keys = queries, width }: Heads): Shape {
  const [q, k, v] = [queries, keys, keys].map((length) => parameterLeaf([batch, length, heads * width], 'f32'));
  const y = attention(q, k, v, { heads });
  const { flops } = workOf([y]);
  const sizes = `${batch}x${heads}x${queries}${keys === queries ? '' : `(${keys})`}x${width}`;
  const backward = pass === 'backward';
  return {
    name: `attention ${sizes}${backward ? ', gradients' : ''}`,
    op: backward ? 'attentionGrad' : 'attention',
    family: 'attention',
    // Two products forwards; backwards the scores once more and four others.
    flops: backward ? 2.5 * flops : flops,
    results: backward ? grad(y, [q, k, v], [parameterLeaf(y.shape, 'f32')]) : [y],
    frozen: new Set(),
    peer: `attention ${pass} ${batch} ${heads} ${queries} ${keys} ${width}`,
  };
}

function normGradient(size: number, channels: number): Shape {
  const bench = normed(size, channels);
  const leaves = bench.operands.map((it) => parameterLeaf(it.shape, 'f32'));
  const y = bench.build(...leaves);
  return {
    name: `${bench.name}, gradients`,
    op: 'groupNormGrad',
    family: 'memory',
    flops: 0,
    results: grad(y, leaves, [parameterLeaf(y.shape, 'f32')]),
    frozen: new Set(),
    peer: `groupnormgrad ${size} ${channels}`,
  };
}

const unet: ConvShape[] = [
  { size: 64, inputs: 320 },
  { size: 32, inputs: 640 },
  { size: 16, inputs: 1280 },
  { size: 8, inputs: 1280 },
  { size: 64, inputs: 640, outputs: 320 },
  { size: 64, inputs: 960, outputs: 320 },
  { size: 32, inputs: 1920, outputs: 640 },
  { size: 16, inputs: 2560, outputs: 1280 },
  { size: 64, inputs: 640 },
  { size: 32, inputs: 1280 },
];
const vae: ConvShape[] = [
  { size: 64, inputs: 512 },
  { size: 128, inputs: 512 },
  { size: 256, inputs: 256 },
  { size: 256, inputs: 512 },
  { size: 512, inputs: 128 },
  { size: 512, inputs: 256 },
  { size: 512, inputs: 256, outputs: 128 },
];
const others: ConvShape[] = [
  { size: 64, inputs: 4, outputs: 320 },
  { size: 64, inputs: 320, outputs: 4 },
  { size: 64, inputs: 320, stride: 2 },
  { size: 64, inputs: 960, outputs: 320, kernel: 1 },
  { size: 16, inputs: 2560, outputs: 1280, kernel: 1 },
  { size: 512, inputs: 3, outputs: 128 },
  { size: 512, inputs: 128, outputs: 3 },
  // SwinIR's and VGG16's.
  { size: 64, inputs: 180 },
  { size: 512, inputs: 3, outputs: 64 },
  { size: 512, inputs: 64 },
  { size: 256, inputs: 64, outputs: 128 },
];
const heads: Heads[] = [
  { batch: 2, heads: 10, queries: 4096, width: 64 },
  { heads: 5, queries: 4096, width: 64 },
  { heads: 10, queries: 1024, width: 64 },
  { heads: 20, queries: 256, width: 64 },
  { heads: 5, queries: 4096, keys: 77, width: 64 },
  { heads: 16, queries: 257, width: 80 },
  { heads: 1, queries: 4096, width: 512 },
];

export const shapes: readonly Shape[] = [
  ...linears([
    [4096, 4096, 4096],
    [8192, 8192, 8192],
    [4096, 320, 320],
    [4096, 320, 2560],
    [4096, 1280, 320],
    [1024, 640, 5120],
    [1024, 2560, 640],
    [256, 1280, 10240],
    [256, 5120, 1280],
    [77, 1024, 1280],
    [257, 1280, 3840],
    [257, 1280, 5120],
    [257, 5120, 1280],
    [4096, 180, 540],
    [4096, 360, 180],
  ]),
  ...convs('conv2d', 'forward', [...unet, ...vae, ...others]),
  ...convs('conv2dGradInput', 'input', [...unet, ...vae]),
  ...convs('conv2dGradWeight', 'weight', [...unet, ...vae]),
  ...heads.map((it) => attend('forward', it)),
  ...heads.map((it) => attend('backward', it)),
  ...[normed(64, 320), normed(32, 640), normed(64, 512), normed(256, 256), normed(512, 128)].map((it) =>
    shape('groupNorm', it),
  ),
  normGradient(64, 320),
  normGradient(512, 128),
  shape(
    'layerNorm',
    each('layer norm', (x, gamma, beta) => layerNorm(x, gamma, beta, { eps: 1e-5 }), 4096, 320, ...affine(320)),
  ),
  shape('softmax', each('softmax', softmax, 20480, 4096)),
  shape('add', each('add', add, 512 * 512, 128, operand([512 * 512, 128]))),
  shape('gelu', each('gelu', gelu, 4096, 1280)),
  shape('geglu', each('geglu', geglu, 4096, 2560)),
];
