import { avgPool2d, globalAvgPool, maxPool2d } from '../../lib/graph/ops/pool.ts';
import { emit1, sizeOf } from '../../lib/graph/tensor.ts';
import type { OpCase } from '../support/opcase.ts';

// No two alike, so that a step of the finite differences changes no maximum: 7919 is a prime above every size here.
const distinct = (shape: number[]): { shape: number[]; values: number[] } => {
  const n = sizeOf(shape);
  return { shape, values: Array.from({ length: n }, (_, i) => (((i + 1) * 7919) % n) * (2 / n) - 1) };
};

type Pair = [number, number];
const windows: [name: string, shape: number[], kernel: Pair, stride: Pair][] = [
  ['2x2', [2, 6, 8, 5], [2, 2], [2, 2]],
  ['a border left out', [1, 7, 5, 3], [2, 2], [2, 2]],
  ['overlapping windows', [2, 9, 7, 3], [3, 4], [2, 1]],
  ['gaps between windows', [1, 9, 8, 3], [2, 1], [3, 4]],
  ['one window', [2, 3, 4, 2], [3, 4], [3, 4]],
  ['1x1', [1, 3, 4, 1], [1, 1], [1, 1]],
  ['channels over one tile', [1, 4, 5, 83], [2, 3], [2, 2]],
];

export const cases: OpCase[] = [
  ...windows.flatMap(([name, shape, kernel, stride]): OpCase[] => [
    {
      name,
      op: 'avgPool2d',
      also: ['avgPool2dGrad'],
      inputs: { x: { shape } },
      build: ({ x }) => avgPool2d(x, { kernel, stride }),
    },
    {
      name,
      op: 'maxPool2d',
      also: ['maxPool2dGrad'],
      inputs: { x: distinct(shape) },
      build: ({ x }) => maxPool2d(x, { kernel, stride }),
    },
  ]),
  {
    name: 'the derivative of the adjoint',
    op: 'avgPool2dGrad',
    inputs: { dy: { shape: [1, 3, 2, 3] } },
    build: ({ dy }) => emit1('avgPool2dGrad', [dy], { kernel: [3, 2], stride: [2, 2], size: [8, 5] }),
  },
  {
    name: 'all pixels',
    op: 'avgPool2d',
    inputs: { x: { shape: [2, 3, 5, 4] } },
    build: ({ x }) => avgPool2d(x, { kernel: [3, 5] }),
  },
  {
    name: 'over the pixels of images',
    op: 'sum',
    inputs: { x: { shape: [2, 3, 5, 4] } },
    build: ({ x }) => globalAvgPool(x),
  },
  {
    name: 'uneven padding',
    op: 'maxPool2d',
    also: ['maxPool2dGrad'],
    inputs: { x: distinct([2, 5, 6, 3]) },
    build: ({ x }) => maxPool2d(x, { kernel: [3, 3], stride: [2, 2], padding: [1, 2, 2, 0] }),
  },
  {
    name: 'ties go to the first pixel',
    op: 'maxPool2dGrad',
    inputs: {
      x: { shape: [1, 2, 4, 1], values: [3, 3, 1, 2, 3, 0, 2, 2], nograd: true },
      dy: { shape: [1, 1, 2, 1], nograd: true },
    },
    build: ({ x, dy }) => emit1('maxPool2dGrad', [x, dy], { kernel: [2, 2], stride: [2, 2], padding: [0, 0, 0, 0] }),
  },
];
