// Operators that pack a frozen weight, each in a way of its own.
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { linear, matmul } from '../../lib/graph/ops/matmul.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';

/** A weight of `shape` that is used on an input of shape `x`. */
export interface WeightUse {
  shape: number[];
  x: number[];
  build(x: Tensor, w: Tensor): Tensor;
}

export const weightUses: Record<string, WeightUse> = {
  linear: { shape: [77, 40], x: [9, 40], build: linear },
  matmul: { shape: [40, 77], x: [9, 40], build: matmul },
  '3x3 by Winograd': {
    shape: [48, 32, 3, 3],
    x: [1, 25, 24, 32],
    build: (x, w) => conv2d(x, w, undefined, { padding: 1 }),
  },
  '3x3 on few pixels': {
    shape: [37, 20, 3, 3],
    x: [2, 5, 6, 20],
    build: (x, w) => conv2d(x, w, undefined, { padding: 1 }),
  },
  'strided convolution': {
    shape: [40, 20, 3, 3],
    x: [1, 8, 8, 20],
    build: (x, w) => conv2d(x, w, undefined, { stride: 2, padding: 1 }),
  },
};
