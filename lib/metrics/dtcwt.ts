import { statisticsOf } from '../graph/dtype.ts';
import { sub } from '../graph/ops/elementwise.ts';
import { band, type LowPass, lowPass } from '../graph/ops/low_pass.ts';
import { mean } from '../graph/ops/reduce.ts';
import type { Tensor } from '../graph/tensor.ts';

/** Kingsbury's near-symmetric 13-tap low-pass (near_sym_b), of the first level. */
const first = [
  -0.0017578125, 0, 0.022265625, -0.046875, -0.0482421875, 0.296875, 0.55546875, 0.296875, -0.0482421875, -0.046875,
  0.022265625, 0, -0.0017578125,
];
/** His quarter-shift 14-tap low-pass (qshift_b), of tree a at all further levels; tree b has it reversed. */
const further = [
  0.003253142763653182, -0.00388321199915849, 0.03466034684485349, -0.03887280126882779, -0.11720388769911527,
  0.27529538466888204, 0.7561456438925225, 0.5688104207121227, 0.011866092033797, -0.1067118046866654,
  0.023825384794920298, 0.01702522388155399, -0.005439475937274115, -0.004556895628475491,
];
const reversed = further.toReversed();

/** Sum of weights[k] rows[at(k)], where rows go on as their mirror image beyond the first and the last. */
function combine(rows: readonly Float64Array[], weights: readonly number[], at: (k: number) => number): Float64Array {
  const sum = new Float64Array(rows[0].length);
  weights.forEach((weight, k) => {
    const period = 2 * rows.length;
    const place = ((at(k) % period) + period) % period;
    const row = rows[Math.min(place, period - 1 - place)];
    for (let i = 0; i < sum.length; i++) sum[i] += weight * row[i];
  });
  return sum;
}

/** The whole low-pass of one axis of n samples as the rows of a matrix: each level acts on the rows of the one before. */
function matrixOf(n: number, levels: number): Float64Array[] {
  let rows: Float64Array[] = Array.from({ length: n }, (_, i) => new Float64Array(n).fill(1, i, i + 1));
  if (n % 2) rows.push(rows[n - 1]);
  rows = rows.map((_, i) => combine(rows, first, (k) => i + 6 - k));
  for (let level = 2; level <= levels; level++) {
    const longer = rows.length % 4 ? [rows[0], ...rows, rows[rows.length - 1]] : rows;
    rows = Array.from({ length: longer.length / 2 }, (_, i) => {
      const from = 4 * (i >> 1) - 12 + (i % 2);
      return combine(longer, i % 2 ? reversed : further, (k) => from + 2 * k);
    });
  }
  return rows;
}

/** Low-pass of both axes, and how much of the images is left. */
function filtered(x: Tensor, levels: number): LowPass {
  const [, h, w] = x.shape;
  const [alongY, alongX] = [h, w].map((side) => band(matrixOf(side, levels), statisticsOf(x.dtype)));
  return lowPass(x, alongY, alongX);
}

/**
 * The low-pass image of a dual-tree complex wavelet transform (Kingsbury 2001; near_sym_b, then qshift_b) of images
 * [N, H, W, C], in float32 at least: level 1 keeps H and W (an odd one grows by 1), each further level halves them, where
 * a side of 4 k + 2 grows by 2 before. Constant images come out 2^(levels - 1) times as bright.
 *
 * All levels of an axis are one filter, made in float64, so that an image is filtered twice in all: 45 million operations for
 * three levels of 512 x 512 x 3.
 */
export const dtcwtLow = (x: Tensor, levels = 3): Tensor => filtered(x, levels).y;

/**
 * Mean absolute difference of the low-passes of a and b [N, H, W, C], []: DiffusionReward's wavelet loss. They are linear, so
 * one of the difference does.
 */
export const dtcwtLoss = (a: Tensor, b: Tensor, levels = 3): Tensor => mean(filtered(sub(a, b), levels).level);
