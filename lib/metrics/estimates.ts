// What a picture says of itself without any network or reference.
import { conv2d } from '../graph/ops/conv2d.ts';
import { abs, affine, cast, sqrt, square, sub } from '../graph/ops/elementwise.ts';
import { linear } from '../graph/ops/matmul.ts';
import { mean } from '../graph/ops/reduce.ts';
import { constant, type Tensor } from '../graph/tensor.ts';

/** Brightness of red, green and blue (ITU-R BT.601). */
const luma = Float32Array.of(0.299, 0.587, 0.114);

/** How a 3 x 3 mask answers at each inner pixel of the brightness, 0 to 255, of images [N, H, W, 3] in [0, 1]. */
function answers(images: Tensor, mask: readonly number[]): Tensor {
  const brightness = affine(linear(images, cast(constant(luma, [1, 3], 'f32'), images.dtype)), 255);
  return conv2d(brightness, cast(constant(Float32Array.from(mask), [1, 1, 3, 3], 'f32'), images.dtype));
}

/**
 * Sharpness of images [N, H, W, 3] in [0, 1], [N]: the standard deviation of the Laplacian of their brightness, in levels
 * of 255 (Pech-Pacheco et al. 2000 take its square). Noise counts as sharpness. Sides of 3 pixels at least.
 */
export function sharpness(images: Tensor): Tensor {
  const laplacian = answers(images, [0, 1, 0, 1, -4, 1, 0, 1, 0]);
  const middle = mean(laplacian, [1, 2, 3], true);
  return sqrt(mean(square(sub(laplacian, middle)), [1, 2, 3]));
}

/**
 * Standard deviation of the noise in images [N, H, W, 3] in [0, 1], in levels of 255, [N]: the mean answer of a mask that is
 * blind to edges and slopes (Immerkaer 1996). Fine texture counts as noise. Sides of 3 pixels at least.
 */
export const noiseLevel = (images: Tensor): Tensor =>
  affine(mean(abs(answers(images, [1, -2, 1, -2, 4, -2, 1, -2, 1])), [1, 2, 3]), Math.sqrt(Math.PI / 2) / 6);
