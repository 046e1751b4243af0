import { type ResizeMode, resize } from '../../lib/graph/ops/resample.ts';
import { emit1 } from '../../lib/graph/tensor.ts';
import type { OpCase } from '../support/opcase.ts';

const filters: [mode: ResizeMode, antialias: boolean][] = [
  ['nearest', false],
  ['bilinear', false],
  ['bilinear', true],
  ['bicubic', false],
  ['bicubic', true],
];

const sizes: [name: string, from: [number, number], to: [number, number]][] = [
  ['up by no whole ratio', [5, 7], [9, 16]],
  ['up by two', [4, 3], [8, 6]],
  ['down by no whole ratio', [11, 9], [4, 7]],
  ['down by two', [8, 6], [4, 3]],
  ['down one way, up the other', [10, 3], [3, 8]],
  ['one row stays', [1, 13], [1, 5]],
  ['from one pixel', [1, 1], [3, 2]],
  ['to one pixel', [6, 5], [1, 1]],
];

export const cases: OpCase[] = filters.flatMap(([mode, antialias]) => [
  ...sizes.map(
    ([name, [h, w], to]): OpCase => ({
      name: `${mode}${antialias ? ' with antialias' : ''}, ${name}`,
      op: 'resize',
      also: ['resizeGrad'],
      inputs: { x: { shape: [2, h, w, 3] } },
      build: ({ x }) => resize(x, to, { mode, antialias }),
    }),
  ),
  {
    name: `${mode}${antialias ? ' with antialias' : ''}, channels over one vector`,
    op: 'resize',
    also: ['resizeGrad'],
    inputs: { x: { shape: [1, 5, 4, 37] } },
    build: ({ x }) => resize(x, [3, 6], { mode, antialias }),
  },
  {
    name: `${mode}${antialias ? ' with antialias' : ''}, the derivative of the adjoint`,
    op: 'resizeGrad',
    inputs: { dy: { shape: [1, 3, 8, 2] } },
    build: ({ dy }) => emit1('resizeGrad', [dy], { size: [7, 5], mode, antialias }),
  },
]);
