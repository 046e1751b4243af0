import { grad } from '../graph/grad.ts';
import { geglu, gelu } from '../graph/ops/activation.ts';
import { attention } from '../graph/ops/attention.ts';
import { conv2d } from '../graph/ops/conv2d.ts';
import { add } from '../graph/ops/elementwise.ts';
import { linear } from '../graph/ops/matmul.ts';
import { groupNorm, layerNorm } from '../graph/ops/norm.ts';
import { input, type Shape, type Tensor } from '../graph/tensor.ts';

export const families = ['conv', 'linear', 'attention', 'memory'] as const;
export type Family = (typeof families)[number];

/** One operator at one of Stable Diffusion 2.1's shapes. */
export interface OpBench {
  /** Unique, and begins with the family's operator. */
  readonly name: string;
  readonly family: Family;
  readonly operands: readonly Operand[];
  /** The result, of operands in the order above. */
  build(...operands: Tensor[]): Tensor;
  /** The same job in the words that the peers of bench/ take. */
  readonly peer: string;
}

export interface Operand {
  readonly shape: Shape;
  /** A weight that never changes: kernels pack it once, and that is not timed. */
  readonly frozen: boolean;
}

/** The forward pass, or the gradient by the input or by the weight. */
export type Pass = 'forward' | 'input' | 'weight';

export const operand = (shape: Shape, frozen = false): Operand => ({ shape, frozen });

export interface ConvShape {
  size: number;
  inputs: number;
  outputs?: number;
  kernel?: number;
  stride?: number;
}

export function conv(pass: Pass, weights: 'frozen' | 'trainable', shape: ConvShape): OpBench {
  const { size, inputs, outputs = inputs, kernel = 3, stride = 1 } = shape;
  const x = operand([1, size, size, inputs]);
  const y = operand([1, size / stride, size / stride, outputs]);
  const w = operand([outputs, inputs, kernel, kernel], weights === 'frozen');
  const options = { stride, padding: kernel >> 1 };
  const channels = inputs === outputs ? `${inputs}` : `${inputs}>${outputs}`;
  return {
    name: `conv ${kernel}x${kernel} ${channels} @${size}${stride > 1 ? ` /${stride}` : ''}${titles[pass][weights]}`,
    family: 'conv',
    peer: `conv ${pass} 1 ${size} ${size} ${inputs} ${outputs} ${kernel} ${stride} ${weights}`,
    ...{
      forward: {
        operands: [x, w, operand([outputs], true)],
        build: (a: Tensor, b: Tensor, bias: Tensor) => conv2d(a, b, bias, options),
      },
      input: {
        operands: [y, w],
        build: (dy: Tensor, b: Tensor) => gradient((a) => conv2d(a, b, undefined, options), x.shape, dy),
      },
      weight: {
        operands: [x, y],
        build: (a: Tensor, dy: Tensor) => gradient((b) => conv2d(a, b, undefined, options), w.shape, dy),
      },
    }[pass],
  };
}

export function dense(
  pass: Pass,
  weights: 'frozen' | 'trainable',
  rows: number,
  inputs: number,
  outputs: number,
): OpBench {
  const x = operand([rows, inputs]);
  const y = operand([rows, outputs]);
  const w = operand([outputs, inputs], weights === 'frozen');
  return {
    name: `linear ${rows}x${inputs}x${outputs}${titles[pass][weights]}`,
    family: 'linear',
    peer: `linear ${pass} ${rows} ${inputs} ${outputs} ${weights}`,
    ...{
      forward: { operands: [x, w, operand([outputs], true)], build: linear },
      input: { operands: [y, w], build: (dy: Tensor, b: Tensor) => gradient((a) => linear(a, b), x.shape, dy) },
      weight: { operands: [x, y], build: (a: Tensor, dy: Tensor) => gradient((b) => linear(a, b), w.shape, dy) },
    }[pass],
  };
}

const titles = {
  forward: { frozen: '', trainable: ', trainable' },
  input: { frozen: ', gradient by x', trainable: ', gradient by x, trainable' },
  weight: { frozen: '', trainable: ', gradient by w' },
};

/** The derivative of `fn` by an argument of `shape`; what it does not need of `fn` itself is never run. */
const gradient = (fn: (x: Tensor) => Tensor, shape: Shape, dy: Tensor): Tensor => {
  const x = input('x', shape);
  return grad(fn(x), [x], [dy])[0];
};

function attend(queries: number, keys: number, heads: number, width: number): OpBench {
  const [q, k] = [queries, keys].map((length) => operand([1, length, heads * width]));
  return {
    name: `attention ${heads}x${queries}${keys === queries ? '' : `(${keys})`}x${width}`,
    family: 'attention',
    peer: `attention ${queries} ${keys} ${heads} ${width}`,
    operands: [q, k, k],
    build: (a, b, c) => attention(a, b, c, { heads }),
  };
}

export function normed(size: number, channels: number): OpBench {
  return {
    name: `group norm + SiLU ${channels} @${size}`,
    family: 'memory',
    peer: `groupnorm ${size} ${channels}`,
    operands: [operand([1, size, size, channels]), ...affine(channels)],
    build: (x, gamma, beta) => groupNorm(x, gamma, beta, { groups: 32, eps: 1e-5, silu: true }),
  };
}

type Build = OpBench['build'];

/** Something done to each element, or row, of a tensor [rows, columns]; `more` operands have shapes of their own. */
export function each(name: string, build: Build, rows: number, columns: number, ...more: Operand[]): OpBench {
  return {
    name: `${name} ${rows}x${columns}`,
    family: 'memory',
    peer: `${name.replace(' ', '')} ${rows} ${columns}`,
    operands: [operand([rows, columns]), ...more],
    build,
  };
}

/** Scale and shift of a normalisation. */
export const affine = (channels: number): Operand[] => [operand([channels], true), operand([channels], true)];

/** Convolutions as the UNet (64 x 64 latents) and the VAE (512 x 512 pictures) have them. */
const unetConvs: ConvShape[] = [
  { size: 64, inputs: 320 },
  { size: 32, inputs: 640 },
  { size: 16, inputs: 1280 },
  { size: 8, inputs: 1280 },
];
const vaeConvs: ConvShape[] = [
  { size: 64, inputs: 512 },
  { size: 256, inputs: 256 },
  { size: 512, inputs: 128 },
];
const otherConvs: ConvShape[] = [
  { size: 64, inputs: 4, outputs: 320 },
  { size: 64, inputs: 960, outputs: 320 },
  { size: 16, inputs: 2560, outputs: 1280 },
  { size: 8, inputs: 2560, outputs: 1280 },
  { size: 64, inputs: 320, stride: 2 },
  { size: 64, inputs: 320, outputs: 4 },
  { size: 64, inputs: 960, outputs: 320, kernel: 1 },
  { size: 16, inputs: 2560, outputs: 1280, kernel: 1 },
  { size: 512, inputs: 3, outputs: 128 },
  { size: 512, inputs: 128, outputs: 3 },
];
/** Rows, inputs and outputs of linear layers: the transformers' projections and feed-forwards, text, timestep. */
const linears: [number, number, number][] = [
  [4096, 320, 320],
  [4096, 320, 2560],
  [4096, 1280, 320],
  [1024, 640, 640],
  [1024, 640, 5120],
  [1024, 2560, 640],
  [256, 1280, 1280],
  [256, 1280, 10240],
  [256, 5120, 1280],
  [64, 1280, 1280],
  [77, 1024, 1280],
  [1, 1280, 1280],
];
const trainedLinears: [number, number, number][] = [
  [4096, 320, 2560],
  [4096, 1280, 320],
  [1024, 640, 5120],
  [256, 1280, 10240],
];

/** Every operator that is measured, in the order of the table. */
export const opBenches: readonly OpBench[] = [
  ...[...unetConvs, ...vaeConvs, ...otherConvs].map((shape) => conv('forward', 'frozen', shape)),
  ...[...unetConvs, ...vaeConvs].map((shape) => conv('input', 'frozen', shape)),
  ...unetConvs.map((shape) => conv('forward', 'trainable', shape)),
  ...unetConvs.map((shape) => conv('input', 'trainable', shape)),
  ...[...unetConvs, ...vaeConvs].map((shape) => conv('weight', 'trainable', shape)),
  ...linears.map((shape) => dense('forward', 'frozen', ...shape)),
  ...trainedLinears.map((shape) => dense('forward', 'trainable', ...shape)),
  ...trainedLinears.map((shape) => dense('input', 'trainable', ...shape)),
  ...trainedLinears.map((shape) => dense('weight', 'trainable', ...shape)),
  attend(4096, 4096, 5, 64),
  attend(1024, 1024, 10, 64),
  attend(256, 256, 20, 64),
  attend(4096, 77, 5, 64),
  attend(4096, 4096, 1, 512),
  normed(64, 320),
  normed(512, 128),
  each('add', add, 4096, 320, operand([4096, 320])),
  each('add', add, 512 * 512, 128, operand([512 * 512, 128])),
  each('gelu', gelu, 4096, 1280),
  each('geglu', geglu, 4096, 2560),
  each('layer norm', (x, gamma, beta) => layerNorm(x, gamma, beta, { eps: 1e-5 }), 4096, 320, ...affine(320)),
];
