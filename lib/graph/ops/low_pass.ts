import { arrayOf, type DType, statisticsOf, type TypedArray } from '../dtype.ts';
import { check, constant, defineOp, emit, emit1, floatOf, type Tensor } from '../tensor.ts';
import { cast } from './elementwise.ts';

/**
 * A linear filter of an axis as a matrix whose rows each have their numbers close together: row i has taps[k, i] at
 * column first[i] + k. Both are constants: taps [K, rows] and first i32 [rows].
 */
export interface Band {
  readonly taps: Tensor;
  readonly first: Tensor;
}

/** The band of a matrix given by its rows. `dtype`: f32 or f64. */
export function band(matrix: readonly Float64Array[], dtype: DType): Band {
  const columns = matrix[0].length;
  const spans = matrix.map((row) => {
    const from = row.findIndex((v) => v !== 0);
    return from < 0 ? [0, 0] : [from, row.findLastIndex((v) => v !== 0) + 1];
  });
  const width = Math.max(1, ...spans.map(([from, to]) => to - from));
  const first = Int32Array.from(spans, ([from]) => Math.min(from, columns - width));
  const taps = arrayOf(dtype, width * matrix.length);
  for (let k = 0; k < width; k++) {
    matrix.forEach((row, i) => {
      taps[k * matrix.length + i] = row[first[i] + k];
    });
  }
  return {
    taps: constant(taps, [width, matrix.length], dtype),
    first: constant(first, [matrix.length], 'i32'),
  };
}

const valuesOf = ({ node }: Tensor): TypedArray => {
  check(node.leaf?.kind === 'constant', 'needs bands that are constants');
  return node.leaf.data;
};

/** The band of the transposed matrix, which has `columns` rows. */
function transposed(taps: Tensor, first: Tensor, columns: number): Band {
  const [width, rows] = taps.shape;
  const [values, starts] = [valuesOf(taps), valuesOf(first)];
  const matrix = Array.from({ length: columns }, () => new Float64Array(rows));
  for (let k = 0; k < width; k++) {
    for (let i = 0; i < rows; i++) matrix[starts[i] + k][i] = values[k * rows + i];
  }
  return band(matrix, taps.dtype);
}

export interface LowPass {
  /** The filtered images, in float32 at least. */
  y: Tensor;
  /** The mean of |y| of each image, [N]. */
  level: Tensor;
}

/**
 * Images filtered along both axes, and how much of them is left.
 *
 * @param x [N, H, W, C]
 * @param alongY filter of H; `alongX` of W. In float32 where x has 16 bits
 * @returns y [N, rows of alongY, rows of alongX, C]
 */
export function lowPass(x: Tensor, alongY: Band, alongX: Band): LowPass {
  const [y, level] = emit('lowPass', [x, alongY.taps, alongY.first, alongX.taps, alongX.first]);
  return { y, level };
}
defineOp('lowPass', {
  infer: ([x, tapsY, firstY, tapsX, firstX]) => {
    const dtype = statisticsOf(floatOf(x));
    check(x.rank === 4 && x.size > 0, 'needs images [N, H, W, C]');
    const [n, h, w, c] = x.shape;
    for (const [taps, first, side] of [
      [tapsY, firstY, h],
      [tapsX, firstX, w],
    ] as const) {
      const [width, rows] = taps.shape;
      check(taps.dtype === dtype && first.dtype === 'i32' && first.size === rows, `needs taps ${dtype} and first i32`);
      check(
        valuesOf(first).every((from) => from >= 0 && from + width <= side),
        'a band reaches beyond the image',
      );
    }
    const shape = [n, tapsY.shape[1], tapsX.shape[1], c];
    return [
      { shape, dtype },
      { shape: [n], dtype },
    ];
  },
  vjp: ({ inputs: [x, tapsY, firstY, tapsX, firstX], outputs: [y] }, [dy, dLevel]) => {
    const [, h, w] = x!.shape;
    const [alongY, alongX] = [transposed(tapsY!, firstY!, h), transposed(tapsX!, firstX!, w)];
    const bands = [alongY.taps, alongY.first, alongX.taps, alongX.first];
    return [cast(emit1('lowPassGrad', [y, dy, dLevel, ...bands]), x!.dtype)];
  },
});
/** The sum of what y and the level hand on, through the transposed filters. */
defineOp('lowPassGrad', {
  infer: ([y, , , tapsY, , tapsX]) => {
    const [n, , , c] = y.shape;
    return [{ shape: [n, tapsY.shape[1], tapsX.shape[1], c], dtype: y.dtype }];
  },
});
