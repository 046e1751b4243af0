import { Draws } from '../data/draws.ts';

/** A share of successes, with Wilson's interval around it. */
export interface Share {
  readonly correct: number;
  readonly count: number;
  /** NaN where nothing was counted, as the bounds are. */
  readonly share: number;
  readonly low: number;
  readonly high: number;
}

/** A mean, with an interval of 95% around it. */
export interface Mean {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

/** Samples that intervals of means are made of, and the seed that they are drawn by. */
const resamples = 2000;
const resampleSeed = 95;

/**
 * The mean of values and its bootstrap interval of 95%, by percentiles (Efron 1979). It takes values as independent, and is
 * somewhat narrow for fewer than twenty of them.
 */
export function bootstrapMean(values: readonly number[]): Mean {
  const draws = new Draws(resampleSeed);
  const meanOf = (pick: (i: number) => number): number =>
    values.reduce((sum, _, i) => sum + values[pick(i)], 0) / values.length;
  const means = Array.from({ length: resamples }, () => meanOf(() => draws.below(values.length))).sort((a, b) => a - b);
  const at = (share: number): number => means[Math.round(share * (resamples - 1))];
  return { mean: meanOf((i) => i), low: at(0.025), high: at(0.975) };
}

/**
 * Wilson's score interval of a binomial share (Wilson 1927), which stays within [0, 1] and is honest for few trials.
 *
 * @param correct number of successes; halves are welcome, for what is undecided
 * @param z quantile of the normal distribution: 1.96 for 95%
 */
export function wilson(correct: number, count: number, z = 1.959964): Share {
  const share = correct / count;
  const square = z ** 2 / count;
  const middle = (share + square / 2) / (1 + square);
  const half = (z / (1 + square)) * Math.sqrt((share * (1 - share)) / count + square / (4 * count));
  return { correct, count, share, low: Math.max(0, middle - half), high: Math.min(1, middle + half) };
}
