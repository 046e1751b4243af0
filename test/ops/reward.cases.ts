import { type DType, statisticsOf } from '../../lib/graph/dtype.ts';
import { add, affine, full } from '../../lib/graph/ops/elementwise.ts';
import { type Band, band, lowPass } from '../../lib/graph/ops/low_pass.ts';
import {
  cosineSimilarity,
  cosines,
  crossEntropy,
  directionDistance,
  l1Loss,
  meanError,
  mseLoss,
} from '../../lib/graph/ops/reward.ts';
import { softmax } from '../../lib/graph/ops/softmax.ts';
import type { OpCase } from '../support/opcase.ts';

const between = (name: string, a: number[], b: number[], rest: Partial<OpCase> = {}): OpCase => ({
  name,
  op: 'cosines',
  also: ['cosinesGrad'],
  inputs: { a: { shape: a }, b: { shape: b } },
  build: ({ a, b }) => cosines(a, b),
  ...rest,
});

const scale = { shape: [], range: [1, 2] as [number, number], statistics: true };

const apart = (name: string, shape: number[], rest: Partial<OpCase> = {}): OpCase => ({
  name,
  op: 'directionDistance',
  also: ['directionDistanceGrad'],
  inputs: { a: { shape }, b: { shape }, weight: { shape: shape.slice(-1), statistics: true } },
  build: ({ a, b, weight }) => directionDistance(a, b, weight),
  ...rest,
});

/** A filter of `rows` rows over `n` places, each with some five numbers about its own place, or fewer at the ends. */
const filter = (n: number, rows: number, dtype: DType): Band =>
  band(
    Array.from({ length: rows }, (_, i) =>
      Float64Array.from({ length: n }, (_, j) => {
        const apart = Math.abs(j - (i * n) / rows);
        return apart < 2.5 ? Math.cos(i + 2 * j) : 0;
      }),
    ),
    dtype,
  );

const filtered = (name: string, shape: number[], to: [number, number], rest: Partial<OpCase> = {}): OpCase => ({
  name,
  op: 'lowPass',
  also: ['lowPassGrad'],
  inputs: { x: { shape } },
  build: ({ x }) => {
    const dtype = statisticsOf(x.dtype);
    const { y, level } = lowPass(x, filter(shape[1], to[0], dtype), filter(shape[2], to[1], dtype));
    return [y, level];
  },
  ...rest,
});

const pair = { a: { shape: [3, 4, 19] }, b: { shape: [3, 4, 19] } };

export const cases: OpCase[] = [
  between('each with each', [5, 33], [3, 33]),
  between('two images a text', [3, 2, 64], [3, 1, 64]),
  between('one pair of two numbers', [1, 2], [1, 2]),
  between('more than a vector and an odd number', [2, 1, 515], [2, 2, 515]),
  between('no images', [0, 8], [3, 8]),
  // The floor's own gradient: the norm has none.
  between('norms under the floor', [2, 8], [1, 8], { build: ({ a, b }) => cosines(affine(a, 0.125), b, 3) }),
  {
    ...between('of rows', [4, 19], [4, 19]),
    build: ({ a, b }) => cosineSimilarity(a, b),
  },
  {
    name: 'of class numbers, one of no class',
    op: 'crossEntropy',
    also: ['crossEntropyGrad'],
    inputs: {
      logits: { shape: [5, 7], range: [-4, 4] },
      labels: { shape: [5], dtype: 'i32', values: [0, 6, 3, 9, 1] },
    },
    build: ({ logits, labels }) => crossEntropy(logits, labels),
  },
  {
    name: 'of class numbers, scaled',
    op: 'crossEntropy',
    also: ['crossEntropyGrad'],
    inputs: { logits: { shape: [3, 2] }, labels: { shape: [3], dtype: 'i32', values: [1, 1, 0] }, scale },
    build: ({ logits, labels, scale }) => crossEntropy(logits, labels, scale),
  },
  {
    name: 'of probabilities, scaled, more rows than warps',
    op: 'crossEntropy',
    also: ['crossEntropyGrad'],
    inputs: { logits: { shape: [3, 7, 41] }, labels: { shape: [3, 7, 41], range: [-2, 2] }, scale },
    build: ({ logits, labels, scale }) => crossEntropy(logits, softmax(labels), scale),
  },
  apart('odd channels', [2, 5, 3, 7]),
  apart('one position, over a warp of vectors', [1, 1, 264]),
  apart('many positions', [2, 17, 9, 64]),
  apart('two channels', [3, 4, 2]),
  // Differences take no part there: around nothing the distance is as steep as a step.
  {
    ...apart('no features', [2, 3, 3]),
    inputs: { b: { shape: [2, 3, 3] }, weight: { shape: [3], statistics: true } },
    build: ({ b, weight }) => directionDistance(full(b.shape, 0, b.dtype), b, weight),
  },
  filtered('to fewer pixels', [2, 12, 9, 3], [3, 4]),
  filtered('to more pixels, one of one channel', [1, 3, 5, 1], [7, 5]),
  filtered('of one pixel', [2, 1, 1, 2], [1, 1]),
  filtered('whole vectors, more than a block and many rows', [1, 37, 24, 16], [35, 31]),
  {
    ...filtered('its level alone', [3, 8, 8, 3], [4, 4]),
    build: ({ x }) => lowPass(x, filter(8, 4, statisticsOf(x.dtype)), filter(8, 4, statisticsOf(x.dtype))).level,
  },
  { name: 'mseLoss', op: 'meanError', inputs: pair, build: ({ a, b }) => mseLoss(a, b) },
  { name: 'l1Loss', op: 'meanError', inputs: pair, build: ({ a, b }) => l1Loss(a, b) },
  {
    name: 'of several pairs, one of them twice',
    op: 'meanError',
    inputs: { ...pair, c: { shape: [1] }, d: { shape: [1] } },
    build: ({ a, b, c, d }) => [
      meanError([
        [a, b],
        [c, d],
        [b, a],
      ]),
      meanError([[add(a, b), b]], { absolute: true }),
    ],
  },
];
