/** A share of successes, with Wilson's interval around it. */
export interface Share {
  readonly correct: number;
  readonly count: number;
  /** NaN where nothing was counted, as the bounds are. */
  readonly share: number;
  readonly low: number;
  readonly high: number;
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
