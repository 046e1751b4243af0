// Products that finish their results: what follows them in the graph becomes part of them (lib/graph/epilogue.ts).
import { gelu, quickGelu, silu } from '../../lib/graph/ops/activation.ts';
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { add, affine, cast, leakyRelu, mul, relu, sub } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { linear, matmul } from '../../lib/graph/ops/matmul.ts';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { type CaseInput, type OpCase, uniforms, valuesOf } from '../support/opcase.ts';

type Inputs = Record<string, Tensor>;

/** A linear layer over [2, 9, 33], with a residual of its result and a row for each of the two images. */
const tokens = (
  name: string,
  then: (y: Tensor, t: Inputs) => Tensor,
  out = 40,
  range: [number, number] = [-1, 1],
): OpCase => ({
  name: `linear, ${name}`,
  op: 'linear',
  inputs: {
    x: { shape: [2, 9, 33] },
    weight: { shape: [out, 33], range: [-0.5, 0.5] },
    bias: { shape: [out], range },
    residual: { shape: [2, 9, out] },
    shift: { shape: [2, 1, out] },
    row: { shape: [out] },
  },
  build: (t) => then(linear(t.x, t.weight, t.bias), t),
});

/** A 3x3 convolution of pixels that becomes silu(y + shift of each image) + residual. */
function image(name: string, [n, h, w, channels]: number[], out: number, frozen: boolean): OpCase {
  const spec: CaseInput = { shape: [out, channels, 3, 3], range: [-0.3, 0.3] };
  return {
    name: `conv2d, ${name}`,
    op: 'conv2d',
    also: ['conv2dGradInput'],
    inputs: {
      x: { shape: [n, h, w, channels] },
      residual: { shape: [n, h, w, out] },
      shift: { shape: [n, 1, 1, out] },
      ...(frozen ? {} : { weight: spec }),
    },
    build: ({ x, weight = constant(valuesOf(spec, x.dtype, uniforms(out)), spec.shape, x.dtype), residual, shift }) =>
      add(silu(add(conv2d(silu(x), weight, undefined, { padding: 1 }), shift)), residual),
  };
}

export const cases: OpCase[] = [
  tokens('a residual', (y, { residual }) => add(residual, y)),
  tokens('silu', (y) => silu(y)),
  tokens('gelu and a scale', (y) => affine(gelu(y), 0.5, 0.25)),
  tokens('quickGelu, less a residual', (y, { residual }) => sub(quickGelu(y), residual)),
  tokens('as many steps as there can be, and one more', (y, { residual, shift, row }) =>
    add(leakyRelu(affine(mul(add(y, shift), row), 0.75, -0.1), 0.1), residual),
  ),
  tokens(
    'odd columns, two residuals',
    (y, { residual, shift }) => add(mul(relu(add(y, shift)), residual), shift),
    7,
    [2, 3],
  ),
  tokens('a view on the way', (y, { residual }) => add(reshape(silu(y), [18, 40]), reshape(residual, [18, 40]))),
  tokens('wider than a block', (y, { residual, row }) => add(mul(y, row), residual), 850),
  {
    name: 'matmul, one after the other: gradients pass activations',
    op: 'matmul',
    inputs: {
      a: { shape: [3, 13, 9] },
      b: { shape: [3, 9, 35], range: [-0.5, 0.5] },
      c: { shape: [3, 35, 5], range: [-0.5, 0.5] },
    },
    build: ({ a, b, c }) => [gelu, silu, quickGelu].map((fn) => matmul(fn(matmul(a, b)), c)),
  },
  {
    name: 'matmul, deeper than a block, of one element a row',
    op: 'matmul',
    inputs: { a: { shape: [14, 401] }, b: { shape: [401, 1] }, shift: { shape: [1] } },
    build: ({ a, b, shift }) => add(matmul(a, b), shift),
  },
  {
    name: 'linear, to float32 and a residual there',
    op: 'linear',
    inputs: { x: { shape: [5, 24] }, weight: { shape: [16, 24] }, residual: { shape: [5, 16], statistics: true } },
    build: ({ x, weight, residual }) => add(cast(linear(x, weight), residual.dtype), residual),
  },
  image('direct', [2, 5, 6, 5], 12, false),
  image('direct, frozen', [2, 5, 6, 8], 12, true),
  image('by tiles, frozen', [3, 14, 11, 48], 32, true),
  image('by tiles', [1, 23, 25, 32], 48, false),
  {
    name: '1x1 convolutions beside each other',
    op: 'conv2d',
    inputs: {
      x: { shape: [2, 3, 5, 17] },
      a: { shape: [20, 17, 1, 1] },
      b: { shape: [20, 17, 1, 1] },
      bias: { shape: [20] },
    },
    build: ({ x, a, b, bias }) => silu(add(conv2d(x, a, bias), conv2d(x, b))),
  },
  {
    name: 'an input gradient of stride 2, passed on through leakyRelu',
    op: 'conv2dGradInput',
    also: ['conv2d'],
    inputs: { x: { shape: [1, 9, 7, 5] }, weight: { shape: [8, 5, 3, 3] } },
    build: ({ x, weight }) => conv2d(leakyRelu(x, 0.2), weight, undefined, { stride: 2, padding: 1 }),
  },
];
