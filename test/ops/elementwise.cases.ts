import * as ops from '../../lib/graph/ops/elementwise.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import type { CaseInput, OpCase } from '../support/opcase.ts';

type Pair = (a: Tensor, b: Tensor) => Tensor;
type Inputs = Record<string, CaseInput>;

/** Every way two operands can line up: each takes its own path through the broadcasting walk. */
const layouts: Record<string, [number[], number[]]> = {
  'equal shapes': [
    [3, 37],
    [3, 37],
  ],
  'a scalar': [[5, 13], []],
  'a scalar first': [[1, 1], [19]],
  'a row': [[2, 7, 33], [33]],
  'a column': [
    [7, 33],
    [7, 1],
  ],
  'a channel of each image': [
    [2, 3, 5, 17],
    [2, 1, 1, 17],
  ],
  'both stretched': [
    [3, 1, 9],
    [4, 1],
  ],
  'alternating axes': [
    [2, 1, 3, 1],
    [1, 5, 1, 4],
  ],
};

function binary(op: string, fn: Pair, b: Partial<CaseInput> = {}, names = Object.keys(layouts)): OpCase[] {
  return names.map((name) => ({
    name,
    op,
    inputs: { a: { shape: layouts[name][0] }, b: { shape: layouts[name][1], ...b } },
    build: ({ a, b }) => fn(a, b),
  }));
}

const unary = (
  op: string,
  fn: (x: Tensor) => Tensor,
  range: [number, number] = [-3, 3],
  also: string[] = [],
): OpCase => ({
  name: `[5, 29] in [${range}]`,
  op,
  also,
  inputs: { x: { shape: [5, 29], range } },
  build: ({ x }) => fn(x),
});

/** Repeated values, so that comparisons meet both answers and equality. */
const steps = (shape: number[]): CaseInput => ({
  shape,
  values: Array.from({ length: shape.reduce((a, b) => a * b, 1) }, (_, i) => ((i * 7) % 5) - 2),
  nograd: true,
});

const comparison = (op: string, fn: Pair): OpCase => ({
  name: 'with ties',
  op,
  inputs: {
    a: steps([4, 21]),
    b: { shape: [21], values: Array.from({ length: 21 }, (_, i) => (i % 3) - 1), nograd: true },
  },
  build: ({ a, b }) => fn(a, b),
});

const where = (name: string, inputs: Inputs): OpCase => ({
  name,
  op: 'where',
  inputs,
  build: ({ cond, a, b }) => ops.where(cond, a, b),
});

export const cases: OpCase[] = [
  ...binary('add', ops.add),
  ...binary('sub', ops.sub),
  ...binary('mul', ops.mul),
  ...binary('div', ops.div, { range: [0.5, 2] }),
  ...binary('maximum', ops.maximum, {}, ['equal shapes', 'a row']),
  ...binary('minimum', ops.minimum, {}, ['equal shapes', 'a column']),
  {
    name: 'more elements than a thread takes',
    op: 'mul',
    inputs: { a: { shape: [3, 12000] }, b: { shape: [12000], nograd: true } },
    build: ({ a, b }) => ops.mul(a, b),
  },
  {
    name: 'numbers for operands',
    op: 'sub',
    also: ['add', 'mul', 'full'],
    inputs: { x: { shape: [3, 5] } },
    build: ({ x }) => ops.add(ops.sub(2, x), ops.mul(x, 3)),
  },
  {
    name: 'one element',
    op: 'add',
    inputs: { a: { shape: [] }, b: { shape: [1, 1] } },
    build: ({ a, b }) => ops.add(a, b),
  },
  {
    name: 'no element',
    op: 'mul',
    inputs: { a: { shape: [0, 3] }, b: { shape: [3] } },
    build: ({ a, b }) => ops.mul(a, b),
  },
  comparison('greater', ops.greater),
  comparison('greaterEqual', ops.greaterEqual),
  comparison('equal', ops.equal),
  where('equal shapes', { cond: { ...steps([3, 19]), range: [0, 2] }, a: { shape: [3, 19] }, b: { shape: [3, 19] } }),
  where('broadcast', { cond: steps([5, 1, 7]), a: { shape: [1, 4, 1] }, b: { shape: [7] } }),
  {
    name: 'the side not taken may be NaN',
    op: 'where',
    inputs: { x: { shape: [2, 9] } },
    build: ({ x }) => {
      const positive = ops.greater(x, 0);
      return ops.where(positive, ops.where(positive, x, Number.NaN), ops.neg(x));
    },
  },
  unary('neg', ops.neg),
  unary('exp', ops.exp, [-20, 3]),
  unary('log', ops.log, [0.05, 9]),
  unary('sqrt', ops.sqrt, [0.1, 9]),
  unary('rsqrt', ops.rsqrt, [0.2, 9]),
  unary('reciprocal', ops.reciprocal, [-3, -0.3]),
  unary('square', ops.square),
  unary('abs', ops.abs, [-3, 3], ['sign']),
  unary('sign', ops.sign),
  unary('sin', ops.sin, [-30, 30]),
  unary('cos', ops.cos, [-30, 30]),
  unary('tanh', ops.tanh),
  unary('sigmoid', ops.sigmoid, [-9, 9]),
  unary('affine', (x) => ops.affine(x, -1.75, 0.3)),
  unary('power', (x) => ops.power(x, 2.4), [0.2, 3]),
  unary('clamp', (x) => ops.clamp(x, -0.5, 1.25), [-3, 3], ['clampGrad']),
  unary('leakyRelu', (x) => ops.leakyRelu(x, 0.2), [-3, 3], ['leakyReluGrad']),
  unary('leakyRelu', ops.relu),
  {
    name: 'from float32 to float64, which is no node where x is float64',
    op: 'cast',
    inputs: { x: { shape: [3, 11] } },
    build: ({ x }) => ops.sin(ops.cast(x, 'f64')),
  },
  {
    name: 'between floats and whole numbers',
    op: 'cast',
    inputs: {
      x: { shape: [7], values: [-1e12, -2.7, -0.5, 0.5, 2.7, 300, 1e12], nograd: true },
      i: { shape: [4], dtype: 'i32', values: [-70000, -1, 7, 70000] },
      u: { shape: [3], dtype: 'u8', values: [0, 128, 255] },
    },
    build: ({ x, i, u }) => [
      ops.cast(x, 'i32'),
      ops.cast(x, 'u8'),
      ops.cast(i, 'u8'),
      ops.cast(i, x.dtype),
      ops.cast(u, x.dtype),
      ops.cast(u, 'i32'),
    ],
  },
  {
    name: 'of every dtype',
    op: 'full',
    inputs: { x: { shape: [2], nograd: true } },
    build: ({ x }) => [
      ops.add(ops.full([3, 2], 0.25, x.dtype), x),
      ops.full([5], -7, 'i32'),
      ops.full([3], 255, 'u8'),
      ops.full([], Number.POSITIVE_INFINITY, x.dtype),
    ],
  },
];
