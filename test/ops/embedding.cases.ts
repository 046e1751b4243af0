import { embedding } from '../../lib/graph/ops/embedding.ts';
import type { OpCase } from '../support/opcase.ts';

const lookup = (name: string, table: [number, number], indices: number[], values: number[]): OpCase => ({
  name,
  op: 'embedding',
  also: ['embeddingGrad'],
  inputs: { table: { shape: table }, indices: { shape: indices, dtype: 'i32', values } },
  build: ({ table, indices }) => embedding(table, indices),
});

export const cases: OpCase[] = [
  lookup('repeated and unused rows', [11, 19], [2, 3], [0, 10, 4, 4, 4, 0]),
  lookup('one column', [3, 1], [5], [2, 1, 0, 1, 2]),
  lookup('a single index', [5, 33], [], [3]),
];
