import { geglu, gelu, quickGelu, silu } from '../../lib/graph/ops/activation.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import type { OpCase } from '../support/opcase.ts';

const activation = (op: string, fn: (x: Tensor) => Tensor): OpCase[] =>
  [[1], [3, 37], [2, 3, 1, 65]].map((shape) => ({
    name: `[${shape}]`,
    op,
    also: [`${op}Grad`],
    inputs: { x: { shape, range: [-6, 6] } },
    build: ({ x }) => fn(x),
  }));

export const cases: OpCase[] = [
  ...activation('silu', silu),
  ...activation('gelu', gelu),
  ...activation('quickGelu', quickGelu),
  ...[[2], [5, 38], [2, 3, 130]].map((shape) => ({
    name: `[${shape}]`,
    op: 'geglu',
    also: ['gegluGrad'],
    inputs: { x: { shape, range: [-4, 4] as [number, number] } },
    build: ({ x }: Record<string, Tensor>) => geglu(x),
  })),
];
