import {
  add,
  affine,
  cast,
  div,
  equal,
  greaterEqual,
  mul,
  sign,
  sqrt,
  square,
  sub,
  where,
} from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import { concat, reshape, slice, transpose } from '../graph/ops/layout.ts';
import { amax, argmax, mean, sum } from '../graph/ops/reduce.ts';
import { resize } from '../graph/ops/resample.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { FAN } from '../models/fan.ts';
import type { Parameters } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import { renamed } from '../weights/rename.ts';
import { wholeLevels } from './levels.ts';

/**
 * Faces as VQFR's landmark metric takes them: 256 x 256 without antialiasing, rounded to 8 bits.
 *
 * @param x [N, H, W, 3] in [0, 1]
 * @returns [N, 256, 256, 3] in [0, 1]
 */
export const landmarkPreprocess = (x: Tensor): Tensor =>
  affine(wholeLevels(resize(wholeLevels(affine(x, 255)), [FAN.size, FAN.size], { mode: 'bilinear' })), 1 / 255);

/** The last maps of {@link FAN} without the outlines', [N, 64, 64, 98]. */
export function heatmaps(maps: readonly Tensor[]): Tensor {
  const last = maps[maps.length - 1];
  return slice(last, [0, 0, 0, 0], [...last.shape.slice(0, 3), FAN.points]);
}

/** The place of each map's largest value, counted along rows: i32 [N, P] of maps [N, H, W, P]. */
export const peaks = (maps: Tensor): Tensor => argmax(rows(maps), 2);

/** Maps [N, H, W, P] as [N, P, H * W]. */
function rows(maps: Tensor): Tensor {
  const [n, h, w, p] = maps.shape;
  return reshape(transpose(maps, [0, 3, 1, 2]), [n, p, h * w]);
}

/**
 * Landmarks of heat maps as the official code reads them: the largest value, moved by a quarter of a pixel towards the larger of
 * its neighbours, and half a pixel to its middle.
 *
 * The official code does not treat the border point by point, and neither does this: where any map of a picture has its peak in
 * the last row, all its points take the last value of their map for their lower neighbour; where any has it in the first (or at
 * the start of the second), all take the first value for their upper one. Left and right of a row's ends is the row before or
 * after. A peak in the last pixel, on which the official code fails, is its own right neighbour here.
 *
 * @param maps [N, 64, 64, P]
 * @param size pixels of the picture that the points shall lie in, [height, width]
 * @returns [N, P, 2]: x and y in those pixels
 */
export function landmarks(maps: Tensor, [height, width]: readonly [number, number]): Tensor {
  const [n, h, w, p] = maps.shape;
  const all = rows(maps);
  const found = peaks(maps);
  const each = Array.from({ length: n }, (_, i) => {
    const values = reshape(slice(all, [i, 0, 0], [1, p, h * w]), [p * h * w, 1]);
    const peak = cast(reshape(slice(found, [i, 0], [1, p]), [p]), 'f32');
    const starts = constant(
      Float32Array.from({ length: p }, (_, k) => k * h * w),
      [p],
      'f32',
    );
    // Whole numbers under 2^24 are exact.
    const at = (place: Tensor): Tensor => reshape(embedding(values, cast(add(starts, place), 'i32')), [p]);
    const last = h * w - 1;
    const right = at(where(equal(peak, last), last, affine(peak, 1, 1)));
    const left = at(where(equal(peak, 0), last, affine(peak, 1, -1)));
    const [below, above] = [affine(peak, 1, w), affine(peak, 1, -w)];
    const low = at(where(amax(greaterEqual(below, h * w)), last, below));
    const high = at(where(amax(greaterEqual(0, above)), 0, above));
    const y = cast(cast(div(peak, w), 'i32'), 'f32');
    const x = sub(peak, mul(y, w));
    const move = (from: Tensor, towards: Tensor, away: Tensor, scale: number): Tensor =>
      reshape(affine(add(affine(sign(cast(sub(towards, away), 'f32')), 0.25), from), scale, 0.5 * scale), [1, p, 1]);
    return concat([move(x, right, left, width / w), move(y, low, high, height / h)], 2);
  });
  return concat(each, 0);
}

/**
 * Landmark distance (LMD): the mean over the landmarks of how many pixels they lie apart, [N].
 *
 * @param a points [N, P, 2]; `b` alike
 */
export const landmarkDistance = (a: Tensor, b: Tensor): Tensor => mean(sqrt(sum(square(sub(a, b)), [2])), [1]);

/** Loads the network from its file, frozen, with or without the `module.` of its keys; see {@link loadWeights}. */
export const loadLandmarks = (parameters: Parameters, network: FAN, file: WeightsFile): Promise<void> =>
  loadWeights(
    parameters,
    network,
    renamed(file, (key) => key.replace(/^module\./, '')),
    { frozen: true },
  );
