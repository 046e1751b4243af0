import { add, affine, div, mul, sqrt, sub } from '../graph/ops/elementwise.ts';
import { pad, slice } from '../graph/ops/layout.ts';
import type { Tensor } from '../graph/tensor.ts';
import { beside, statisticsOfImages } from '../nn/statistics.ts';

/** Weights 1/4, 1/2, 1/4 at distance `radius` along an axis, the border repeated. */
function blurAlong(x: Tensor, axis: number, radius: number): Tensor {
  const at = (offset: number): number[] => x.shape.map((_, i) => (i === axis ? offset : 0));
  const padded = pad(x, at(radius), at(radius), 'replicate');
  const beside = add(slice(padded, at(0), x.shape), slice(padded, at(2 * radius), x.shape));
  return affine(add(beside, affine(x, 2)), 0.25);
}

/** Images [N, H, W, C] under the 3 x 3 binomial kernel spread to distance `radius`, the border repeated. */
export const dilatedBlur = (x: Tensor, radius: number): Tensor => blurAlong(blurAlong(x, 1, radius), 2, radius);

/**
 * What of images [N, H, W, C] is coarser than 2^levels pixels: {@link dilatedBlur} at distances 1, 2, 4, ... in turn, the
 * a trous wavelet transform. What it takes away is the sum of the transform's details.
 */
export function waveletLow(x: Tensor, levels = 5): Tensor {
  return Array.from({ length: levels }, (_, i) => 2 ** i).reduce(dilatedBlur, x);
}

/**
 * The details of `content` over the colours of `style`, both [N, H, W, C]: content - low(content) + low(style), as DiffBIR
 * and OSEDiff mend colours with. The transform is linear, so one of the difference does. Not clamped.
 */
export const waveletColorFix = (content: Tensor, style: Tensor): Tensor =>
  add(content, waveletLow(sub(style, content)));

/** Pixels around one that {@link waveletColorFix} looks at. */
export const waveletReach = 2 ** 5 - 1;

/**
 * `content` with the mean and the deviation of `style` in each image and channel, both [N, H, W, C] with 2 pixels or more
 * (adaptive instance normalisation, as OSEDiff's colour fix): deviations are square roots of the unbiased variance plus 1e-5. Not clamped.
 *
 * @param pixels of a whole image, where these are parts of some
 */
export function adainColorFix(content: Tensor, style: Tensor, pixels = content.shape[1] * content.shape[2]): Tensor {
  const statistics = (x: Tensor): { centre: Tensor; deviation: Tensor } => {
    const { mean, variance } = statisticsOfImages(x, x.shape[3]);
    return { centre: beside(mean, x), deviation: beside(sqrt(affine(variance, pixels / (pixels - 1), 1e-5)), x) };
  };
  const [from, to] = [statistics(content), statistics(style)];
  return add(mul(sub(content, from.centre), div(to.deviation, from.deviation)), to.centre);
}
