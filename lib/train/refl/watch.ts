import { abs, affine, div, log, maximum, mul, square, sub } from '../../graph/ops/elementwise.ts';
import { slice } from '../../graph/ops/layout.ts';
import { matmul } from '../../graph/ops/matmul.ts';
import { amax, mean } from '../../graph/ops/reduce.ts';
import { constant, type Tensor } from '../../graph/tensor.ts';
import { dilatedBlur } from '../../restore/color_fix.ts';

/** What pictures show of a restorer that pleases its judge instead of restoring: [N] each, 0 for a photograph beside itself. */
export interface Signals<T> {
  /** Energy of the finest details beside the photograph's, in octaves: above 0 there is more of it. */
  readonly detail: T;
  /** By how much details repeat at a distance more than the photograph's do: the largest correlation, from 0 to 1. */
  readonly repetition: T;
  /** How far the mean or the deviation of a colour lies from the photograph's, in parts of the whole range. */
  readonly colour: T;
}

/** Distances at which details may repeat, in pixels: closer ones are what a stroke of any kind looks like. */
const nearest = 4;
const farthest = 32;

/** Energies below this, of 0.1 levels of 255, are no detail. */
const floor = (0.1 / 255) ** 2;

/**
 * Signals of images [N, H, W, 3], about [0, 1], beside their photographs; sides of at least 16.
 *
 * Details are what a 3 x 3 binomial blur takes from the luma. Their correlation is taken along rows and columns, at every
 * distance from 4 to 32 pixels that leaves half of the picture: textures that a judge of patches likes come as grids.
 */
export function signalsOf(images: Tensor, targets: Tensor): Signals<Tensor> {
  const [ours, theirs] = [images, targets].map((x) => {
    const luma = matmul(x, constant(Float32Array.of(0.299, 0.587, 0.114), [3, 1], 'f32'));
    return sub(luma, dilatedBlur(luma, 1));
  });
  const energy = (h: Tensor): Tensor => affine(mean(square(h), [1, 2, 3]), 1, floor);
  const detail = affine(log(div(energy(ours), energy(theirs))), 1 / Math.LN2);
  const repetition = sub(repeated(ours, energy(ours)), repeated(theirs, energy(theirs)));
  const spread = (x: Tensor): [Tensor, Tensor] => {
    const middle = mean(x, [1, 2], true);
    return [middle, mean(abs(sub(x, middle)), [1, 2], true)];
  };
  const [[m1, d1], [m2, d2]] = [spread(images), spread(targets)];
  const colour = amax(maximum(abs(sub(m1, m2)), abs(sub(d1, d2))), [1, 2, 3]);
  return { detail, repetition, colour };
}

/** The largest correlation of details [N, H, W, 1] with themselves at a distance, [N]. */
function repeated(h: Tensor, energy: Tensor): Tensor {
  const [n, height, width] = h.shape;
  const at = (axis: 1 | 2, lag: number): Tensor => {
    const size = [n, height, width, 1];
    size[axis] -= lag;
    const start = [0, 0, 0, 0];
    const moved = [...start];
    moved[axis] = lag;
    return mean(mul(slice(h, start, size), slice(h, moved, size)), [1, 2, 3]);
  };
  const correlations = ([1, 2] as const).flatMap((axis) => {
    const last = Math.min(farthest, h.shape[axis] >> 1);
    return Array.from({ length: last - nearest + 1 }, (_, i) => at(axis, nearest + i));
  });
  return div(correlations.reduce(maximum), energy);
}

/** How a restorer does on pictures that are not trained on: means over them. */
export interface Observation extends Signals<number> {
  /** Of the judge that trains it, as it is then. */
  readonly reward: number;
  /** What that judge gives the photographs: a judge that learns may come to like everything more, or less. 0 when left out. */
  readonly photographs?: number;
  /** Of a judge that neither of them learns from, if there is one. */
  readonly independent?: number;
  /** To the photographs, by name: LPIPS, landmarks, identity. Smaller is nearer. */
  readonly distances: Readonly<Record<string, number>>;
  /** What is written down and not watched, by name. */
  readonly others?: Readonly<Record<string, number>>;
}

/** A sign that the judge is pleased by something else than restoration. */
export interface Alarm {
  readonly detector: string;
  readonly value: number;
  readonly limit: number;
  readonly says: string;
}

/**
 * Changes since the beginning that are alarming. Fixed before any experiment, on photographs that were altered by hand
 * (test/train/refl/watch.test.ts): the limits of the three signals lie above what mild JPEG, noise and sharpening do, and below
 * what the paper's two failures look like.
 */
export const limits = {
  /** Octaves more or less detail than both the photograph and the beginning. */
  detail: 0.75,
  repetition: 0.06,
  colour: 0.04,
  /** Share by which a distance grew while the reward rose. */
  distance: 0.05,
  /** Rise of the reward beside that of the photographs, of 2 from the worst to the best, that counts as one. */
  reward: 0.005,
  /** Share of the reward's rise that an independent judge must see too. */
  shared: 0.25,
} as const;

/** The alarms of an observation, given the first one of the run. None where a restorer gives back the photographs. */
export function alarmsOf(first: Observation, now: Observation): Alarm[] {
  const alarms: Alarm[] = [];
  const raise = (detector: string, value: number, limit: number, says: string): void => {
    // NaN is alarming, too.
    if (!(value <= limit)) alarms.push({ detector, value, limit, says });
  };
  const excess = now.detail - Math.max(0, first.detail);
  const loss = Math.min(0, first.detail) - now.detail;
  raise('texture', excess, limits.detail, 'more fine detail than the photographs have, and more than at first');
  raise('smoothing', loss, limits.detail, 'less fine detail than at first');
  raise('repetition', now.repetition - Math.max(0, first.repetition), limits.repetition, 'details repeat like a grid');
  raise('colour', now.colour - first.colour, limits.colour, 'colours move away from the photographs');
  const beside = ({ reward, photographs = 0 }: Observation): number => reward - photographs;
  const rise = beside(now) - beside(first);
  if (!(rise > limits.reward)) return alarms;
  for (const [name, distance] of Object.entries(now.distances)) {
    const before = first.distances[name];
    const says = `the reward rises, and so does the distance by ${name}`;
    raise(`distance.${name}`, (distance - before) / Math.max(before, 1e-6), limits.distance, says);
  }
  if (now.independent !== undefined && first.independent !== undefined) {
    const unseen = 1 - (now.independent - first.independent) / rise;
    raise('judge', unseen, 1 - limits.shared, 'the reward rises, and an independent judge does not see why');
  }
  return alarms;
}
