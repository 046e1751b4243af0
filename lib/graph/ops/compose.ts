// Functions that are compositions of operators: they have no kernels, and their derivatives follow from their parts.
import { ReflError } from '../../errors.ts';
import { arrayOf, statisticsOf, type TypedArray } from '../dtype.ts';
import { constant, type Tensor } from '../tensor.ts';
import {
  add,
  affine,
  cast,
  cos,
  div,
  exp,
  log,
  maximum,
  minimum,
  mul,
  rsqrt,
  sin,
  square,
  sub,
} from './elementwise.ts';
import { concat, pad, reshape, split } from './layout.ts';
import { amax, sum } from './reduce.ts';

function constantOf(values: readonly number[], like: Tensor): Tensor {
  const dtype = statisticsOf(like.dtype);
  const data: TypedArray = arrayOf(dtype, values.length);
  data.set(values);
  return cast(constant(data, [values.length], dtype), like.dtype);
}

/** x in the dtype of statistics over it: 16 bits hold no eps^2. */
const widened = (x: Tensor): Tensor => cast(x, statisticsOf(x.dtype));

/** x / max(|x|, eps), with the Euclidean norm over the last axis, computed in float32 at least. */
export function l2Normalize(x: Tensor, eps = 1e-12): Tensor {
  const wide = widened(x);
  return cast(mul(wide, rsqrt(maximum(sum(square(wide), [-1], true), eps * eps))), x.dtype);
}

/** log(sum(exp(x))) over the last axis, which goes; computed from x - max(x). */
export function logSumExp(x: Tensor): Tensor {
  const largest = amax(x, [-1], true);
  return add(log(sum(exp(sub(x, largest)), [-1])), reshape(largest, x.shape.slice(0, -1)));
}

/**
 * exp(x) for x in [-20, 0], to the bit what PyTorch's CPU build computes in float32: the published algorithm of SLEEF's
 * expf (two-part reduction by ln 2, polynomial of degree 7), which now and then differs from exact rounding in the last bit.
 */
function exp32(x: number): number {
  const { fround } = Math;
  const q = Math.round(x * Math.LOG2E);
  // Products of two float32 values are exact in float64, so this rounds once, as a fused multiply-add does.
  const fma = (a: number, b: number, c: number): number => fround(a * b + c);
  const s = fma(q, fround(-1.428606765330187e-6), fma(q, -0.693145751953125, x));
  const terms = [0.00139304355252534, 0.008333360776305199, 0.04166648536920547, 0.1666666716337204, 0.5];
  const u = terms.reduce((sum, c) => fma(sum, s, fround(c)), fround(0.00019852761761285365));
  return fround(1 + fma(fround(s * s), u, s)) * 2 ** q;
}

/**
 * Sinusoidal embedding of timesteps (Ho et al. 2020, in the order of the diffusion UNets: cosines, then sines).
 *
 * @param t [N], f32 or f64
 * @returns [N, dim]; where `dim` is odd the last column is 0
 */
export function timestepEmbedding(t: Tensor, dim: number, maxPeriod = 10000): Tensor {
  const half = Math.floor(dim / 2);
  // Rounded to float32 at every step, as the published models computed it: at t = 999 the last bit of a frequency
  // moves the angle by up to 6e-5.
  const { fround } = Math;
  const rate = fround(-Math.log(maxPeriod));
  const frequencies = Array.from({ length: half }, (_, i) => exp32(fround(fround(rate * i) / half)));
  const angles = mul(reshape(t, [t.size, 1]), constantOf(frequencies, t));
  const y = concat([cos(angles), sin(angles)], 1);
  return dim % 2 ? pad(y, [0, 0], [0, 1], 'zero') : y;
}

/** The four bands of one Haar level, each [N, H/2, W/2, C]. */
export interface HaarBands {
  ll: Tensor;
  /** Left minus right: detail along a row. */
  lh: Tensor;
  /** Top minus bottom: detail along a column. */
  hl: Tensor;
  hh: Tensor;
}

/** One level of the orthonormal Haar wavelet transform of an image [N, H, W, C] with even H and W. */
export function haarWavelet(x: Tensor): HaarBands {
  const [n, h, w, c] = x.shape;
  if (x.rank !== 4 || h % 2 || w % 2)
    throw new ReflError('ERR_SHAPE', `haarWavelet needs [N, even H, even W, C], got ${x}`);
  const [top, bottom] = split(reshape(affine(x, 0.5), [n, h / 2, 2, w, c]), 2, 2);
  const alongRow = (y: Tensor): [sum: Tensor, difference: Tensor] => {
    const [left, right] = split(reshape(y, [n, h / 2, w / 2, 2, c]), 2, 3).map((t) => reshape(t, [n, h / 2, w / 2, c]));
    return [add(left, right), sub(left, right)];
  };
  const [ll, lh] = alongRow(add(top, bottom));
  const [hl, hh] = alongRow(sub(top, bottom));
  return { ll, lh, hl, hh };
}

/** The factor, [1], that limits gradients of Euclidean norm `norm` to `maxNorm`: min(1, maxNorm / (norm + 1e-6)). */
export const clipFactor = (norm: Tensor, maxNorm: number): Tensor => minimum(div(maxNorm, affine(norm, 1, 1e-6)), 1);
