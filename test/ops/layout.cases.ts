import {
  broadcastTo,
  concat,
  type PadMode,
  pad,
  pixelShuffle,
  pixelUnshuffle,
  reshape,
  roll,
  slice,
  split,
  transpose,
  windowPartition,
  windowReverse,
} from '../../lib/graph/ops/layout.ts';
import { emit1, type Tensor } from '../../lib/graph/tensor.ts';
import type { OpCase } from '../support/opcase.ts';

const one = (
  op: string,
  name: string,
  shape: number[],
  build: (x: Tensor) => Tensor | Tensor[],
  also: string[] = [],
): OpCase => ({
  name,
  op,
  also,
  inputs: { x: { shape } },
  build: ({ x }) => build(x),
});

const orders = (items: number[]): number[][] =>
  items.length < 2 ? [items] : items.flatMap((i) => orders(items.filter((j) => j !== i)).map((rest) => [i, ...rest]));

const transposes: [shape: number[], perm: number[]][] = [
  ...orders([0, 1, 2, 3]).map((perm): [number[], number[]] => [[2, 3, 4, 5], perm]),
  [
    [2, 35, 70],
    [0, 2, 1],
  ], // tiles, their remainders, and a batch
  [
    [3, 1100],
    [1, 0],
  ], // a short and a long axis, either way round
  [
    [1100, 3],
    [1, 0],
  ],
  [
    [1, 5, 1, 7],
    [3, 2, 1, 0],
  ], // 1-sized axes drop out
  [
    [1, 1],
    [1, 0],
  ],
  [
    [2, 2, 3, 2, 3, 2],
    [0, 2, 4, 1, 3, 5],
  ], // six axes, the last kept
  [
    [2, 2, 3, 2, 3, 2],
    [0, 3, 5, 1, 4, 2],
  ],
  [
    [0, 3],
    [1, 0],
  ],
];

const broadcasts: [from: number[], to: number[]][] = [
  [[], [3, 4]],
  [[7], [2, 3, 7]],
  [
    [2, 1, 5],
    [2, 4, 5],
  ],
  [
    [2, 3, 1],
    [2, 3, 37],
  ],
  [
    [3, 1, 2, 1],
    [5, 3, 4, 2, 6],
  ],
  [
    [1, 1],
    [1, 3],
  ],
  [
    [1, 3],
    [0, 3],
  ],
];

const boxes: [shape: number[], start: number[], size: number[]][] = [
  [
    [2, 5, 7],
    [0, 1, 2],
    [2, 3, 4],
  ],
  [
    [2, 5, 7],
    [1, 0, 0],
    [1, 5, 7],
  ],
  [
    [2, 5, 7],
    [0, 2, 0],
    [2, 2, 7],
  ],
  [
    [2, 5, 7],
    [0, 0, 6],
    [2, 5, 1],
  ],
  [
    [3, 40],
    [0, 3],
    [3, 35],
  ],
  [
    [4, 3],
    [2, 1],
    [0, 2],
  ],
];

const pads: [name: string, shape: number[], before: number[], after: number[]][] = [
  ['images', [2, 4, 5, 3], [0, 1, 2, 0], [0, 3, 0, 0]],
  ['wide pads', [1, 6, 4, 2], [0, 5, 3, 0], [0, 5, 3, 0]],
  ['the last axis', [3, 5], [0, 4], [0, 1]],
  ['every axis', [2, 3, 4], [1, 2, 0], [0, 1, 3]],
];

const integers = (op: string, dtype: 'u8' | 'i32', build: (x: Tensor) => Tensor): OpCase => ({
  name: `${dtype} elements`,
  op,
  inputs: { x: { shape: [3, 5, 7], dtype, range: [0, 255] } },
  build: ({ x }) => build(x),
});

export const cases: OpCase[] = [
  one('reshape', 'the same bytes', [3, 4, 5], (x) => [reshape(x, [12, -1]), reshape(x, [60])]),
  ...transposes.map(([shape, perm]) =>
    one('transpose', `[${shape}] to axes ${perm}`, shape, (x) => transpose(x, perm)),
  ),
  ...broadcasts.map(([from, to]) => one('broadcastTo', `[${from}] to [${to}]`, from, (x) => broadcastTo(x, to))),
  ...boxes.map(([shape, start, size]) =>
    one('slice', `[${size}] at [${start}] of [${shape}]`, shape, (x) => slice(x, start, size), ['pad']),
  ),
  ...[0, 1, -1].map(
    (axis): OpCase => ({
      name: `along axis ${axis}`,
      op: 'concat',
      also: ['slice'],
      inputs: Object.fromEntries(
        [3, 1, 0, 4].map((n, k) => [`t${k}`, { shape: [2, 5, 6].map((d, i) => (i === (axis + 3) % 3 ? n : d)) }]),
      ),
      build: (t) => concat(Object.values(t), axis),
    }),
  ),
  one('slice', 'equal parts', [2, 6, 9], (x) => [...split(x, 3, -1), ...split(x, 2, 1)]),
  ...(['zero', 'reflect', 'replicate'] satisfies PadMode[]).flatMap((mode) => [
    ...pads.map(([name, shape, before, after]) =>
      one('pad', `${mode}, ${name}`, shape, (x) => pad(x, before, after, mode), mode === 'zero' ? [] : ['padGrad']),
    ),
    one('padGrad', `${mode}, the derivative of the adjoint`, [2, 9, 7], (dy) =>
      emit1('padGrad', [dy], { before: [0, 3, 1], after: [0, 2, 2], mode }),
    ),
  ]),
  one('roll', 'images', [2, 5, 7, 3], (x) => roll(x, [0, 2, -3, 0])),
  one('roll', 'every axis, further than its extent', [2, 5, 7], (x) => roll(x, [3, -11, 15])),
  one('roll', 'no shift', [2, 3], (x) => roll(x, [0, 0])),
  one('transpose', 'pixels to channels and back', [2, 6, 9, 2], (x) => {
    const small = pixelUnshuffle(x, 3);
    return [small, pixelShuffle(small, 3)];
  }),
  one('transpose', 'windows and back', [2, 6, 4, 5], (x) => {
    const windows = windowPartition(x, 2);
    return [windows, windowReverse(windows, 2, [6, 4])];
  }),
  integers('transpose', 'u8', (x) => transpose(x, [2, 0, 1])),
  integers('transpose', 'i32', (x) => transpose(x, [1, 0, 2])),
  integers('broadcastTo', 'u8', (x) => broadcastTo(reshape(x, [3, 5, 7, 1]), [3, 5, 7, 2])),
  integers('slice', 'u8', (x) => slice(x, [0, 1, 2], [3, 3, 4])),
  integers('concat', 'u8', (x) => concat([x, x], -1)),
  integers('pad', 'u8', (x) => pad(x, [0, 1, 2], [1, 0, 1], 'replicate')),
  integers('roll', 'i32', (x) => roll(x, [1, 2, 3])),
];
