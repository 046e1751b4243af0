import { add, cast, mul, rsqrt, square, sub } from '../graph/ops/elementwise.ts';
import { broadcastTo, reshape } from '../graph/ops/layout.ts';
import { mean } from '../graph/ops/reduce.ts';
import type { Tensor } from '../graph/tensor.ts';

/** Mean and biased variance of each image's groups of channels, both [N, groups]. */
export interface Statistics {
  readonly mean: Tensor;
  readonly variance: Tensor;
}

/** Thrown through a trace that has asked for statistics that are not known yet. */
class Wanted {
  readonly measured: Statistics;

  constructor(measured: Statistics) {
    this.measured = measured;
  }
}

interface Given {
  readonly statistics: readonly Statistics[];
  used: number;
  /** The part of the image that statistics are taken of. */
  readonly inside: (x: Tensor) => Tensor;
}

const given: Given[] = [];

/**
 * Traces `fn`, which sees a part of an image only, with the statistics of whole images wherever it asks for them, as group norms do,
 * in the order in which it does. At the first time beyond those it ends with the statistics of this part, or rather of what
 * `inside` cuts out of it.
 */
export function withStatistics(
  statistics: readonly Statistics[],
  inside: (x: Tensor) => Tensor,
  fn: () => Tensor,
): { output: Tensor } | { measured: Statistics } {
  given.push({ statistics, used: 0, inside });
  try {
    return { output: fn() };
  } catch (thrown) {
    if (thrown instanceof Wanted) return { measured: thrown.measured };
    throw thrown;
  } finally {
    given.pop();
  }
}

/** Within {@link withStatistics} the next of its statistics, for x [N, ..., C]; undefined outside of it. */
function nextGiven(x: Tensor, groups: number): Statistics | undefined {
  const current = given.at(-1);
  if (!current) return undefined;
  const known = current.statistics[current.used++];
  if (!known) throw new Wanted(measure(current.inside(x), groups));
  return known;
}

/** The statistics of images x [N, ..., C] of float32: of whole images, also within {@link withStatistics}. */
export const statisticsOfImages = (x: Tensor, groups: number): Statistics => nextGiven(x, groups) ?? measure(x, groups);

/** Numbers of the groups of channels [N, groups], to go with x [N, ..., C]: [N, 1, ..., C]. */
export function beside(perGroup: Tensor, x: Tensor): Tensor {
  const [n, groups] = perGroup.shape;
  const c = x.shape.at(-1)!;
  const repeated = broadcastTo(reshape(perGroup, [n, groups, 1]), [n, groups, c / groups]);
  return reshape(repeated, [n, ...Array(x.rank - 2).fill(1), c]);
}

/** Within {@link withStatistics}, the group norm of x [N, ..., C] by the next of its statistics; undefined outside of it. */
export function givenGroupNorm(
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  { groups, eps }: { groups: number; eps: number },
): Tensor | undefined {
  const wide = cast(x, gamma.dtype);
  const known = nextGiven(wide, groups);
  if (!known) return undefined;
  const deviation = beside(rsqrt(add(known.variance, eps)), x);
  const normalised = mul(sub(wide, beside(known.mean, x)), deviation);
  return cast(add(mul(normalised, gamma), beta), x.dtype);
}

/** The statistics of x [N, ..., C] itself. */
function measure(x: Tensor, groups: number): Statistics {
  const [n, c] = [x.shape[0], x.shape.at(-1)!];
  const grouped = reshape(x, [n, -1, groups, c / groups]);
  const middle = mean(grouped, [1, 3], true);
  const variance = mean(square(sub(grouped, middle)), [1, 3]);
  return { mean: reshape(middle, [n, groups]), variance };
}
