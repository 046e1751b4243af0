import { ReflError } from '../errors.ts';
import { add, affine, cast, clamp, mul, sub } from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import { reshape, split } from '../graph/ops/layout.ts';
import { constant, type Tensor } from '../graph/tensor.ts';

/** Where each pixel of an output looks: positions in an image in pixels, from its left and top edge, both [h, w]. */
export interface Positions {
  readonly x: Tensor;
  readonly y: Tensor;
}

/**
 * The positions x = m0*u + m1*v + m2, y = m3*u + m4*v + m5 for the centres (u, v) of the pixels of an h x w image.
 *
 * @param matrix [6], m0 to m5
 */
export function affinePositions(matrix: Tensor, [h, w]: readonly [number, number]): Positions {
  const centres = (n: number, shape: number[]): Tensor =>
    constant(
      Float32Array.from({ length: n }, (_, i) => i + 0.5),
      shape,
      'f32',
    );
  const [u, v] = [centres(w, [1, w]), centres(h, [h, 1])];
  const [m0, m1, m2, m3, m4, m5] = split(matrix, 6, 0);
  return { x: add(add(mul(u, m0), mul(v, m1)), m2), y: add(add(mul(u, m3), mul(v, m4)), m5) };
}

export type Interpolation = 'bilinear' | 'bicubic';

/** Indices of a whole image must be exact in float32. */
const mostPixels = 2 ** 24;

/**
 * An image read at any positions; beyond its border the border repeats. Bicubic is Catmull-Rom (a = -0.5). There is no
 * filter against aliasing: where the image shrinks by much, resize it first.
 *
 * Each tap of the kernel is one gather of rows of three numbers, so the work is 4 or 16 gathers an output pixel.
 *
 * @param image [H, W, C], at most 2^24 pixels
 * @returns [h, w, C]
 */
export function sample(image: Tensor, { x, y }: Positions, kind: Interpolation): Tensor {
  const [height, width, channels] = image.shape;
  if (height * width > mostPixels) {
    throw new ReflError(
      'ERR_SHAPE',
      `an image of ${width}x${height} pixels is too large to be sampled: at most ${mostPixels} pixels`,
    );
  }
  const table = reshape(image, [height * width, channels]);
  const [h, w] = x.shape;
  const columns = taps(x, width, kind);
  const rows = taps(y, height, kind);
  let total: Tensor | undefined;
  for (const row of rows) {
    let line: Tensor | undefined;
    const start = affine(row.index, width);
    for (const column of columns) {
      const pixels = embedding(table, cast(add(start, column.index), 'i32'));
      const part = mul(pixels, reshape(column.weight, [h, w, 1]));
      line = line ? add(line, part) : part;
    }
    const part = mul(line!, reshape(row.weight, [h, w, 1]));
    total = total ? add(total, part) : part;
  }
  return total!;
}

interface Tap {
  /** Whole numbers within the image. */
  readonly index: Tensor;
  readonly weight: Tensor;
}

/** The pixels along one axis that surround a position, with their weights. */
function taps(position: Tensor, extent: number, kind: Interpolation): Tap[] {
  // Beyond the border all taps are the border's pixel, whatever their weights. A cast truncates, which is floor above zero.
  const near = clamp(affine(position, 1, -0.5), -2, extent + 1);
  const first = affine(cast(cast(affine(near, 1, 2), 'i32'), 'f32'), 1, -2);
  const t = sub(near, first);
  const weights = kind === 'bilinear' ? [affine(t, -1, 1), t] : catmullRom(t);
  const before = kind === 'bilinear' ? 0 : 1;
  return weights.map((weight, i) => ({ weight, index: clamp(affine(first, 1, i - before), 0, extent - 1) }));
}

/** Weights of the pixels at -1, 0, 1 and 2 for a position t in [0, 1) behind pixel 0. */
function catmullRom(t: Tensor): Tensor[] {
  /** ((a t + b) t + c) t + d */
  const cubic = (a: number, b: number, c: number, d: number): Tensor =>
    affine(mul(affine(mul(affine(t, a, b), t), 1, c), t), 1, d);
  return [cubic(-0.5, 1, -0.5, 0), cubic(1.5, -2.5, 0, 1), cubic(-1.5, 2, 0.5, 0), cubic(0.5, -0.5, 0, 0)];
}
