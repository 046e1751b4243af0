import { conv2d } from '../graph/ops/conv2d.ts';
import { affine, mul, sqrt, square, sub, tanh } from '../graph/ops/elementwise.ts';
import { pad, slice } from '../graph/ops/layout.ts';
import { avgPool2d } from '../graph/ops/pool.ts';
import { mean, sum } from '../graph/ops/reduce.ts';
import { resize } from '../graph/ops/resample.ts';
import { constant, type Tensor } from '../graph/tensor.ts';

/** What restoration guidance measures between images: their mean square distance, or that weighted where the target is flat. */
export const guideLosses = ['mse', 'w_mse'] as const;
export type GuideLoss = (typeof guideLosses)[number];

/** What DiffBIR multiplies the scale of restoration guidance by. */
export const guideUnit = 3000;

/** Sobel's kernels across and down over grey values of RGB, as a convolution's weights [2, 3, 3, 3]. */
function sobelOfGrey(): Tensor {
  const grey = [0.2989, 0.587, 0.114];
  const across = [1, 0, -1, 2, 0, -2, 1, 0, -1];
  const down = [1, 2, 1, 0, 0, 0, -1, -2, -1];
  const values = [across, down].flatMap((kernel) => grey.flatMap((share) => kernel.map((k) => share * k)));
  return constant(Float32Array.from(values), [2, 3, 3, 3], 'f32');
}

/**
 * How flat each pixel's surroundings are: 1 - tanh of the sum of the gradient's magnitude over its block of 2 x 2 pixels. The
 * gradient is Sobel's, of grey values, the border repeated (DiffBIR's weights for its restoration guidance).
 *
 * @param image [N, H, W, 3] in [0, 1], f32
 * @returns [N, H, W, 1], from 0 at edges to 1 where nothing changes
 */
export function flatness(image: Tensor): Tensor {
  const [n, height, width] = image.shape;
  const [rows, columns] = [Math.ceil(height / 2), Math.ceil(width / 2)];
  const around = pad(image, [0, 1, 1, 0], [0, 1 + (height % 2), 1 + (width % 2), 0], 'replicate');
  const magnitude = sqrt(sum(square(conv2d(around, sobelOfGrey())), [-1], true));
  const blocks = affine(tanh(affine(avgPool2d(magnitude, { kernel: [2, 2] }), 4)), -1, 1);
  const whole = resize(blocks, [2 * rows, 2 * columns], { mode: 'nearest' });
  return slice(whole, [0, 0, 0, 0], [n, height, width, 1]);
}

/**
 * How far images are from their targets, each measured by itself: the sum over images of the mean of (image - target)^2, by `weights`
 * where they are given, in the units of images from -1 to 1.
 *
 * @param image,target [N, H, W, 3] in [0, 1]
 * @param weights [N, H, W, 1], of {@link flatness}
 * @returns []
 */
export function guideLoss(image: Tensor, target: Tensor, weights?: Tensor): Tensor {
  const squares = square(affine(sub(image, target), 2));
  return affine(mean(weights ? mul(squares, weights) : squares), image.shape[0]);
}
