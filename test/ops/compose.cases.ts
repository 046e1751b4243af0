import { clipFactor, haarWavelet, l2Normalize, logSumExp, timestepEmbedding } from '../../lib/graph/ops/compose.ts';
import { globalNorm } from '../../lib/graph/ops/optim.ts';
import type { OpCase } from '../support/opcase.ts';

export const cases: OpCase[] = [
  { name: 'l2Normalize', op: 'rsqrt', inputs: { x: { shape: [3, 2, 19] } }, build: ({ x }) => l2Normalize(x) },
  {
    name: 'l2Normalize of zeros',
    op: 'rsqrt',
    inputs: { x: { shape: [2, 5], values: new Array(10).fill(0), nograd: true } },
    build: ({ x }) => l2Normalize(x),
  },
  {
    name: 'logSumExp',
    op: 'amax',
    inputs: { x: { shape: [3, 2, 9], range: [-5, 5] } },
    build: ({ x }) => logSumExp(x),
  },
  {
    name: 'timestepEmbedding',
    op: 'cos',
    also: ['sin'],
    inputs: { t: { shape: [4], values: [0, 1, 17, 30.5] } },
    build: ({ t }) => [timestepEmbedding(t, 32), timestepEmbedding(t, 7)],
  },
  {
    name: 'haarWavelet',
    op: 'add',
    inputs: { x: { shape: [2, 6, 4, 3] } },
    build: ({ x }) => {
      const { ll, lh, hl, hh } = haarWavelet(x);
      return [ll, lh, hl, hh];
    },
  },
  {
    name: 'clipFactor above and below the limit',
    op: 'globalNorm',
    inputs: { x: { shape: [3, 7], nograd: true } },
    build: ({ x }) => [clipFactor(globalNorm([x]), 0.5), clipFactor(globalNorm([x]), 500)],
  },
];
