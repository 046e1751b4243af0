import { ReflError } from '../errors.ts';
import { conv2d } from '../graph/ops/conv2d.ts';
import { abs, affine, cast, div, greater, mul, sqrt, square, sub } from '../graph/ops/elementwise.ts';
import { concat, pad, reshape, roll, slice, transpose } from '../graph/ops/layout.ts';
import { linear, matmul } from '../graph/ops/matmul.ts';
import { mean, sum } from '../graph/ops/reduce.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { fitNormal, gamma, type Normal, normalDistance } from './normal.ts';

/** Pixels a side of a block, before halving. */
export const BLOCK = 96;
const WINDOW = 7;
const SIGMA = 7 / 6;

/** Brightness of studio range, 16 to 235, of red, green and blue of 0 to 255 (ITU-R BT.601, in MATLAB's numbers). */
const luma = [65.481 / 255, 128.553 / 255, 24.966 / 255];

const table = (values: ArrayLike<number>, shape: number[]): Tensor => constant(Float64Array.from(values), shape, 'f64');

/** Brightness [H, W] of a picture of 8 bits [1, H, W, 3], rounded to whole numbers as NIQE takes it. */
export function studioLuma(picture: Tensor): Tensor {
  const [, h, w] = picture.shape;
  const y = affine(linear(cast(picture, 'f64'), table(luma, [1, 3])), 1, 16);
  return cast(cast(affine(reshape(y, [h, w]), 1, 0.5), 'i32'), 'f32');
}

/** MATLAB's imresize to half the size as a matrix [n / 2, n]: the bicubic filter of twice the width, mirrored at the ends. */
function halving(n: number): Tensor {
  const cubic = (x: number): number => (x < 1 ? (1.5 * x - 2.5) * x * x + 1 : ((-0.5 * x + 2.5) * x - 4) * x + 2);
  const values = new Float64Array((n / 2) * n);
  for (let i = 0; i < n / 2; i++) {
    for (let at = 2 * i - 3; at <= 2 * i + 4; at++) {
      const source = at < 0 ? -1 - at : at < n ? at : 2 * n - 1 - at;
      values[i * n + source] += cubic(Math.abs(2 * i + 0.5 - at) / 2) / 2;
    }
  }
  return table(values, [n / 2, n]);
}

const halved = (y: Tensor): Tensor => {
  const rows = matmul(halving(y.shape[0]), cast(y, 'f64'));
  return cast(matmul(rows, halving(y.shape[1]), { transposeB: true }), 'f32');
};

/**
 * Mean and deviation of the pixels around each one, under a Gaussian; borders repeat. [H, W] each. Sums are float64 and results
 * float32, as in the code that published values come from: so a flat area is exactly its own mean, and counts as having no texture.
 */
function surroundings(y: Tensor): { middle: Tensor; deviation: Tensor } {
  const taps = Array.from({ length: WINDOW }, (_, i) => Math.exp(-((i - (WINDOW - 1) / 2) ** 2) / (2 * SIGMA * SIGMA)));
  const total = taps.reduce((a, b) => a + b) ** 2;
  const window = table(
    taps.flatMap((a) => taps.map((b) => (a * b) / total)),
    [1, 1, WINDOW, WINDOW],
  );
  const [h, w] = y.shape;
  const border = [0, (WINDOW - 1) / 2, (WINDOW - 1) / 2, 0];
  const blur = (x: Tensor): Tensor => {
    const padded = pad(reshape(cast(x, 'f64'), [1, h, w, 1]), border, border, 'replicate');
    return cast(reshape(conv2d(padded, window), [h, w]), 'f32');
  };
  const middle = blur(y);
  return { middle, deviation: sqrt(abs(sub(blur(square(y)), square(middle)))) };
}

/** [H, W] as blocks [B, side, side], a column of them after another. */
function blocksOf(x: Tensor, side: number): Tensor {
  const [h, w] = x.shape;
  const parts = reshape(x, [h / side, side, w / side, side]);
  return reshape(transpose(parts, [2, 0, 1, 3]), [-1, side, side]);
}

/** Of blocks [B, side, side]: how many values are below and above 0, their squares' sums, and those of |x| and x^2; [B, 1, 6]. */
function moments(narrow: Tensor): Tensor {
  const x = cast(narrow, 'f64');
  const [below, above] = [greater(0, x), greater(x, 0)];
  const squares = square(x);
  const columns = [below, above, mul(below, squares), mul(above, squares), abs(x), squares];
  return concat(
    columns.map((column) => reshape(sum(column, [1, 2]), [-1, 1, 1])),
    2,
  );
}

/** A pixel's neighbours whose products with it are looked at: right, below, and both diagonals. */
const neighbours = [
  [0, 1],
  [1, 0],
  [1, 1],
  [1, -1],
];

/** What NIQE's features are made of: for each block its {@link moments} at two scales, and how sharp it is. */
export interface BlockMoments {
  /** [B, 5, 6] at full and at half size: the normalised brightness, then its products with its neighbours. */
  readonly full: Tensor;
  readonly half: Tensor;
  /** Mean deviation within a block at full size, [B]. */
  readonly sharpness: Tensor;
}

/**
 * Measures brightness [H, W] in float32, of which whole blocks count. Throws ERR_IMAGE where there are less than two of them.
 */
export function blockMoments(brightness: Tensor): BlockMoments {
  const [h, w] = brightness.shape.map((size) => Math.floor(size / BLOCK) * BLOCK);
  if ((h / BLOCK) * (w / BLOCK) < 2) {
    const [height, width] = brightness.shape;
    const least = `${width}x${height} pixels hold less than two blocks of ${BLOCK}x${BLOCK}`;
    throw new ReflError('ERR_IMAGE', least);
  }
  const y = slice(brightness, [0, 0], [h, w]);
  const at = (image: Tensor, side: number): Tensor => {
    const { middle, deviation } = surroundings(image);
    const blocks = blocksOf(div(sub(image, middle), affine(deviation, 1, 1)), side);
    const products = neighbours.map((shift) => mul(blocks, roll(blocks, [0, ...shift])));
    return concat([blocks, ...products].map(moments), 1);
  };
  return {
    full: at(y, BLOCK),
    half: at(halved(y), BLOCK / 2),
    sharpness: mean(blocksOf(surroundings(y).deviation, BLOCK), [1, 2]),
  };
}

/** Shapes of generalised normal distributions that are tried, 0.2 to 10, and the ratio each is known by. */
const shapes = Array.from({ length: 9801 }, (_, i) => 0.2 + i * 0.001);
const ratios = shapes.map((shape) => gamma(2 / shape) ** 2 / (gamma(1 / shape) * gamma(3 / shape)));

/** The asymmetric generalised normal distribution that has these moments of `count` values (Lasmar et al. 2009). */
function fitShape(row: ArrayLike<number>, count: number): { shape: number; left: number; right: number; mean: number } {
  const [below, above, belowSquares, aboveSquares, absolute, squares] = Array.from(row);
  const [left, right] = [Math.sqrt(belowSquares / below), Math.sqrt(aboveSquares / above)];
  const skew = left / right;
  const ratio = (absolute / count) ** 2 / (squares / count);
  const wanted = (ratio * (skew ** 3 + 1) * (skew + 1)) / (skew ** 2 + 1) ** 2;
  let best = 0;
  for (let i = 1; i < ratios.length; i++) {
    if ((ratios[i] - wanted) ** 2 < (ratios[best] - wanted) ** 2) best = i;
  }
  const shape = shapes[best];
  const spread = Math.sqrt(gamma(1 / shape) / gamma(3 / shape));
  const mean = (right - left) * spread * (gamma(2 / shape) / gamma(1 / shape));
  return { shape, left: left * spread, right: right * spread, mean };
}

/** The values of {@link BlockMoments}. */
export interface BlockValues {
  readonly full: ArrayLike<number>;
  readonly half: ArrayLike<number>;
}

/**
 * The 36 features of each block (Mittal et al. 2013), 18 at each scale: shape and spread of the brightness, then shape, mean, left
 * and right spread of each product with a neighbour. A block without texture has some that are not numbers.
 */
export function niqeFeatures({ full, half }: BlockValues): Float64Array[] {
  const perBlock = 5 * 6;
  return Array.from({ length: full.length / perBlock }, (_, block) =>
    Float64Array.from(
      [full, half].flatMap((values, scale) => {
        const count = (BLOCK / (scale + 1)) ** 2;
        const rows = Array.from({ length: 5 }, (_, i) => {
          const start = block * perBlock + 6 * i;
          return fitShape(
            Array.from({ length: 6 }, (_, k) => values[start + k]),
            count,
          );
        });
        const [first, ...products] = rows;
        const spread = (first.left + first.right) / 2;
        return [first.shape, spread, ...products.flatMap(({ shape, mean, left, right }) => [shape, mean, left, right])];
      }),
    ),
  );
}

/**
 * How far a picture's features lie from those of pristine pictures. With the statistics that were published this is NIQE
 * (Mittal et al. 2013, as BasicSR computes it); with others it is another measure of the same form.
 */
export const niqe = (features: readonly Float64Array[], pristine: Normal): number =>
  normalDistance(pristine, fitNormal(features));
