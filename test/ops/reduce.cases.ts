import { mul } from '../../lib/graph/ops/elementwise.ts';
import { amax, argmax, mean, sum } from '../../lib/graph/ops/reduce.ts';
import type { OpCase } from '../support/opcase.ts';

/** Shape and axes: each takes another path (rows or columns, one chunk or several, one run of axes or more). */
const layouts: [name: string, shape: number[], axes?: number[]][] = [
  ['all', [3, 5, 7]],
  ['all of one element', [1, 1]],
  ['all of no axes', []],
  ['the last axis', [6, 37], [-1]],
  ['the first axis', [37, 6], [0]],
  ['leading axes, as a bias gradient', [2, 5, 7, 19], [0, 1, 2]],
  ['the middle axes of images', [2, 5, 3, 19], [1, 2]],
  ['first and last axis', [4, 3, 5], [0, 2]],
  ['alternating axes', [2, 3, 4, 3, 2], [1, 3]],
  ['a 1-sized axis', [4, 1, 5], [1]],
  ['an empty axis', [3, 0, 2], [1]],
];

export const cases: OpCase[] = [
  ...layouts.map(
    ([name, shape, axes]): OpCase => ({ name, op: 'sum', inputs: { x: { shape } }, build: ({ x }) => sum(x, axes) }),
  ),
  ...layouts.slice(0, -1).map(
    ([name, shape, axes]): OpCase => ({
      name,
      op: 'amax',
      inputs: { x: { shape } },
      build: ({ x }) => amax(x, axes, true),
    }),
  ),
  {
    name: 'many chunks of a long run',
    op: 'sum',
    also: ['amax'],
    inputs: { x: { shape: [2, 50021], nograd: true } },
    build: ({ x }) => [sum(x), sum(x, [1]), amax(x, [1])],
  },
  {
    name: 'many chunks of tall columns, and wide ones',
    op: 'sum',
    also: ['amax'],
    inputs: { x: { shape: [1301, 37], nograd: true }, wide: { shape: [9, 1031], nograd: true } },
    build: ({ x, wide }) => [sum(x, [0]), amax(x, [0]), sum(wide, [0])],
  },
  {
    name: 'many short rows behind one result',
    op: 'sum',
    inputs: { x: { shape: [700, 3, 41], nograd: true } },
    build: ({ x }) => sum(x, [0, 2]),
  },
  {
    name: 'mean',
    op: 'sum',
    inputs: { x: { shape: [3, 4, 9] } },
    build: ({ x }) => [mean(x), mean(x, [1], true), mul(mean(x, [-1]), 3)],
  },
  {
    name: 'ties share the gradient',
    op: 'amax',
    inputs: { x: { shape: [4, 6], values: Array.from({ length: 24 }, (_, i) => (i * 5) % 3), nograd: true } },
    build: ({ x }) => amax(x, [1]),
  },
  ...[0, 1, -1].map(
    (axis): OpCase => ({
      name: `axis ${axis}, with ties`,
      op: 'argmax',
      inputs: { x: { shape: [5, 7, 6], values: Array.from({ length: 210 }, (_, i) => (i * 37) % 11), nograd: true } },
      build: ({ x }) => argmax(x, axis),
    }),
  ),
];
