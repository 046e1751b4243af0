import { groupNorm, layerNorm } from '../../lib/graph/ops/norm.ts';
import type { OpCase } from '../support/opcase.ts';

const affine = (shape: number[]): OpCase['inputs'] => ({
  gamma: { shape: shape.slice(-1), statistics: true },
  beta: { shape: shape.slice(-1), statistics: true },
});

const group = (name: string, shape: number[], groups: number, silu = false, rest: Partial<OpCase> = {}): OpCase => ({
  name: `${name}${silu ? ', with SiLU' : ''}`,
  op: 'groupNorm',
  also: ['groupNormGrad'],
  inputs: { x: { shape }, ...affine(shape) },
  build: ({ x, gamma, beta }) => groupNorm(x, gamma, beta, { groups, eps: 1e-5, silu }),
  ...rest,
});

const layer = (name: string, shape: number[], rest: Partial<OpCase> = {}): OpCase => ({
  name,
  op: 'layerNorm',
  also: ['layerNormGrad'],
  inputs: { x: { shape }, ...affine(shape) },
  build: ({ x, gamma, beta }) => layerNorm(x, gamma, beta, { eps: 1e-6 }),
  ...rest,
});

// A mean 300 times the deviation: float32 keeps about 2e-5 of x - mean, whatever the kernel does.
const offset = (shape: number[]): Partial<OpCase> => ({
  inputs: { x: { shape, range: [100, 101] }, ...affine(shape) },
  tolerance: 1e-4,
});

export const cases: OpCase[] = [
  ...[false, true].flatMap((silu) => [
    group('three channels a group', [2, 5, 7, 96], 32, silu),
    group('one channel a group', [1, 3, 5, 8], 8, silu),
    group('one group', [3, 4, 3, 5], 1, silu),
    group('tokens', [2, 9, 12], 3, silu),
    group('a single pixel', [2, 1, 1, 12], 2, silu),
    group('several chunks and more channels than a tile', [1, 7, 10, 1100], 10, silu),
  ]),
  group('no pixels', [2, 0, 12], 3, true),
  group('no images', [0, 4, 12], 3),
  group('a large mean', [1, 6, 6, 8], 2, false, offset([1, 6, 6, 8])),
  group('many images of one chunk', [5, 33, 1, 17], 17, true),
  layer('odd width', [3, 5, 33]),
  layer('more rows than a block, width over two vectors', [2, 37, 70]),
  layer('one row', [1, 40]),
  layer('a vector', [19]),
  layer('one channel', [4, 1]),
  layer('no rows', [0, 7]),
  layer('a large mean', [4, 31], offset([4, 31])),
];
