import { attention } from '../../lib/graph/ops/attention.ts';
import type { OpCase } from '../support/opcase.ts';

interface Sizes {
  readonly batch?: number;
  readonly heads?: number;
  readonly queries: number;
  /** As many as queries when left out. */
  readonly keys?: number;
  readonly size: number;
  readonly causal?: boolean;
  /** Groups and heads of the bias. */
  readonly bias?: readonly [number, number];
}

function attend(name: string, { batch = 1, heads = 1, queries, keys = queries, size, causal, bias }: Sizes): OpCase {
  const tokens = (length: number): { shape: number[] } => ({ shape: [batch, length, heads * size] });
  return {
    name: `${name}, head size ${size}`,
    op: 'attention',
    also: ['attentionGrad'],
    inputs: {
      q: { ...tokens(queries), range: [-2, 2] },
      k: { ...tokens(keys), range: [-2, 2] },
      v: tokens(keys),
      ...(bias ? { bias: { shape: [...bias, queries, keys] } } : {}),
    },
    build: ({ q, k, v, bias: b }) => attention(q, k, v, { heads, causal, bias: b }),
  };
}

export const cases: OpCase[] = [
  ...[1, 6, 10, 16, 40, 64, 80].map((size) => attend('self', { batch: 2, heads: 3, queries: 19, size })),
  ...[6, 64].map((size) => attend('cross', { heads: 2, queries: 33, keys: 77, size })),
  attend('one token', { heads: 2, queries: 1, size: 5 }),
  attend('one key', { queries: 4, keys: 1, size: 3 }),
  attend('several blocks of queries and keys', { queries: 200, keys: 300, size: 6 }),
  attend('causal', { heads: 2, queries: 21, size: 10, causal: true }),
  attend('causal, several blocks', { queries: 210, size: 4, causal: true }),
  attend('a bias a head', { batch: 4, heads: 3, queries: 16, size: 10, bias: [1, 3] }),
  attend('windows with a bias each', { batch: 6, heads: 2, queries: 17, size: 6, bias: [3, 2] }),
  attend('one bias for all heads', { batch: 2, heads: 3, queries: 5, keys: 9, size: 4, bias: [2, 1] }),
  attend('causal with a bias, several blocks', { queries: 130, size: 3, causal: true, bias: [1, 1] }),
  attend('large heads', { queries: 5, keys: 6, size: 160 }),
];
