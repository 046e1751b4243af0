import { linear, matmul } from '../../lib/graph/ops/matmul.ts';
import { constant } from '../../lib/graph/tensor.ts';
import { type OpCase, uniforms, valuesOf } from '../support/opcase.ts';

/** op(a) [m, k] times op(b) [k, n], with the leading axes `batch`; or one b for them all. */
function product(size: [number, number, number], transposes: string, batch: number[] = [], shared = false): OpCase {
  const [m, k, n] = size;
  const [transposeA, transposeB] = [transposes.includes('a'), transposes.includes('b')];
  const matrix = (rows: number, columns: number, turned: boolean): number[] =>
    turned ? [columns, rows] : [rows, columns];
  return {
    name: `[${[...batch, ...size]}] ${transposes || 'plain'}${shared ? ', one b' : ''}`,
    op: 'matmul',
    inputs: {
      a: { shape: [...batch, ...matrix(m, k, transposeA)] },
      b: { shape: [...(shared ? [] : batch), ...matrix(k, n, transposeB)] },
    },
    build: ({ a, b }) => matmul(a, b, { transposeA, transposeB }),
  };
}

const layer = (name: string, shape: number[], out: number, bias = true): OpCase => ({
  name,
  op: 'linear',
  also: ['matmul'],
  inputs: {
    x: { shape },
    weight: { shape: [out, shape.at(-1)!] },
    ...(bias ? { bias: { shape: [out] } } : {}),
  },
  build: ({ x, weight, bias: b }) => linear(x, weight, b),
});

/** A weight that never changes, which kernels may pack once. */
const frozen = (name: string, shape: number[], out: number): OpCase => ({
  name: `${name}, frozen`,
  op: 'linear',
  also: ['matmul'],
  inputs: { x: { shape } },
  build: ({ x }) => {
    const weight = { shape: [out, shape.at(-1)!] };
    return linear(x, constant(valuesOf(weight, x.dtype, uniforms(out)), weight.shape, x.dtype));
  },
});

export const cases: OpCase[] = [
  ...['', 'a', 'b', 'ab'].flatMap((transposes) => [
    product([1, 1, 1], transposes),
    product([3, 5, 2], transposes, [2, 2]),
    product([13, 9, 35], transposes, [3]),
    product([13, 9, 35], transposes, [3], true),
    product([50, 37, 66], transposes),
  ]),
  product([97, 390, 3], ''),
  product([5, 3, 390], 'b'),
  product([2, 400, 2], 'a', [9]),
  layer('a vector', [7], 3),
  layer('tokens', [2, 9, 33], 65),
  layer('without a bias', [1, 16, 40], 24, false),
  layer('one feature', [4, 1], 1),
  frozen('tokens', [2, 9, 33], 65),
  frozen('deeper than a block', [14, 401], 18),
  frozen('rows that share cache sets', [2, 1024], 5),
  frozen('wider than a block on each of two threads', [3, 6], 1650),
];
