import { affine } from '../../lib/graph/ops/elementwise.ts';
import { logSoftmax, softmax } from '../../lib/graph/ops/softmax.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import type { OpCase } from '../support/opcase.ts';

const rowwise = (op: string, fn: (x: Tensor) => Tensor): OpCase[] => [
  ...[[1], [7, 2], [3, 1, 77], [2, 5, 131]].map((shape) => ({
    name: `[${shape}]`,
    op,
    also: [`${op}Grad`],
    inputs: { x: { shape, range: [-5, 5] as [number, number] } },
    build: ({ x }: Record<string, Tensor>) => fn(x),
  })),
  {
    name: 'large logits, far from 0',
    op,
    inputs: { x: { shape: [3, 33], range: [96, 104] } },
    build: ({ x }) => fn(affine(x, 4)),
  },
];

export const cases: OpCase[] = [...rowwise('softmax', softmax), ...rowwise('logSoftmax', logSoftmax)];
