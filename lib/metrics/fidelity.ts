import { conv2d } from '../graph/ops/conv2d.ts';
import { add, affine, div, log, mul, square, sub } from '../graph/ops/elementwise.ts';
import { reshape, transpose } from '../graph/ops/layout.ts';
import { mean } from '../graph/ops/reduce.ts';
import { constant, type Tensor } from '../graph/tensor.ts';

/**
 * Peak signal-to-noise ratio in dB of images [N, H, W, C] in [0, 1], over all channels: -10 log10 of the mean squared
 * difference; [N].
 */
export function psnr(a: Tensor, b: Tensor): Tensor {
  return affine(log(mean(square(sub(a, b)), [1, 2, 3])), -10 / Math.LN10);
}

const WINDOW = 11;
const SIGMA = 1.5;

/** The normalised 11 x 11 Gaussian window of SSIM as a [1, 1, 11, 11] kernel. */
function window(dtype: 'f32' | 'f64'): Tensor {
  const taps = Array.from({ length: WINDOW }, (_, i) => Math.exp(-((i - (WINDOW - 1) / 2) ** 2) / (2 * SIGMA * SIGMA)));
  const total = taps.reduce((a, b) => a + b) ** 2;
  const values = taps.flatMap((y) => taps.map((x) => (x * y) / total));
  const data = dtype === 'f32' ? Float32Array.from(values) : Float64Array.from(values);
  return constant(data, [1, 1, WINDOW, WINDOW], dtype);
}

/**
 * Structural similarity (Wang et al. 2004) of images [N, H, W, C] in [0, 1]: Gaussian window of 11 x 11 with sigma 1.5, no
 * padding, K1 = 0.01, K2 = 0.03, averaged over positions and channels; [N]. Sides of at least 11.
 */
export function ssim(a: Tensor, b: Tensor): Tensor {
  const [n, h, w, c] = a.shape;
  const kernel = window(a.dtype as 'f32' | 'f64');
  const planes = (x: Tensor): Tensor => reshape(transpose(x, [0, 3, 1, 2]), [n * c, h, w, 1]);
  const blur = (x: Tensor): Tensor => conv2d(x, kernel, undefined, {});
  const [x, y] = [planes(a), planes(b)];
  const [mx, my] = [blur(x), blur(y)];
  const mxy = mul(mx, my);
  const [mxx, myy] = [square(mx), square(my)];
  const covariance = sub(blur(mul(x, y)), mxy);
  const variances = add(sub(blur(square(x)), mxx), sub(blur(square(y)), myy));
  const [c1, c2] = [0.01 ** 2, 0.03 ** 2];
  const above = mul(affine(mxy, 2, c1), affine(covariance, 2, c2));
  const below = mul(affine(add(mxx, myy), 1, c1), affine(variances, 1, c2));
  return mean(reshape(div(above, below), [n, -1]), [1]);
}
