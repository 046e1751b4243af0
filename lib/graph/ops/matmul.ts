import { check, defineOp, emit1, floatOf, sameShape, type Tensor } from '../tensor.ts';
import { broadcastTo, reshape } from './layout.ts';
import { sum } from './reduce.ts';

export interface MatmulOptions {
  /** Multiply by the transpose (of the last two axes) of `a`. */
  readonly transposeA?: boolean;
  readonly transposeB?: boolean;
}

/**
 * Matrix product over the last two axes: [..., M, K] times [..., K, N] is [..., M, N]. The leading axes of `a` and `b`
 * are equal, or `b` has none and serves every matrix of `a`. Throws ERR_SHAPE where the operands do not fit.
 */
export const matmul = (a: Tensor, b: Tensor, { transposeA = false, transposeB = false }: MatmulOptions = {}): Tensor =>
  emit1('matmul', [a, b], { transposeA, transposeB });
defineOp('matmul', {
  infer: ([a, b], { transposeA, transposeB }) => {
    check(a.rank >= 2 && b.rank >= 2, 'needs matrices');
    const [rowsA, colsA] = a.shape.slice(-2);
    const [rowsB, colsB] = b.shape.slice(-2);
    const [m, k] = transposeA ? [colsA, rowsA] : [rowsA, colsA];
    const [kb, n] = transposeB ? [colsB, rowsB] : [rowsB, colsB];
    check(k === kb, `the inner extents ${k} and ${kb} differ`);
    const batch = a.shape.slice(0, -2);
    check(b.rank === 2 || sameShape(batch, b.shape.slice(0, -2)), 'the leading axes differ, and b is not one matrix');
    return [{ shape: [...batch, m, n], dtype: floatOf(a, b) }];
  },
  vjp: ({ inputs, attrs: { transposeA, transposeB } }, [g]) => {
    const [a, b] = inputs as [Tensor, Tensor];
    const tb = transposeB as boolean;
    const each = b.rank === a.rank ? b : broadcastTo(b, [...a.shape.slice(0, -2), ...b.shape]);
    const da = transposeA ? matmul(each, g!, { transposeA: tb, transposeB: true }) : matmul(g!, b, { transposeB: !tb });
    // One matrix for a whole batch: its gradient is one product over all rows of the batch.
    const flat = b.rank < a.rank && !transposeA;
    const [left, right] = flat ? [rows(a), rows(g!)] : [a, g!];
    const db = tb
      ? matmul(right, left, { transposeA: true, transposeB: transposeA as boolean })
      : matmul(left, right, { transposeA: !transposeA });
    return [
      da,
      db.rank === b.rank
        ? db
        : sum(
            db,
            db.shape.slice(0, -2).map((_, i) => i),
          ),
    ];
  },
});

/** [..., M, N] as one matrix of all its rows. */
const rows = (x: Tensor): Tensor => reshape(x, [x.size / x.shape.at(-1)!, x.shape.at(-1)!]);

/**
 * y = x weight^T + bias over the last axis.
 *
 * @param x [..., in]
 * @param weight [out, in]
 * @param bias [out]
 * @returns [..., out]
 */
export const linear = (x: Tensor, weight: Tensor, bias?: Tensor): Tensor => emit1('linear', [x, weight, bias]);
defineOp('linear', {
  infer: ([x, weight, bias]) => {
    check(x.rank >= 1 && weight.rank === 2, 'needs x [..., in] and weight [out, in]');
    const [out, features] = weight.shape;
    check(x.shape.at(-1) === features, `the last axis has ${x.shape.at(-1)} features, the weight takes ${features}`);
    check(!bias || sameShape(bias.shape, [out]), `needs a bias [${out}]`);
    return [{ shape: [...x.shape.slice(0, -1), out], dtype: floatOf(x, weight, bias) }];
  },
  vjp: ({ inputs: [x, weight, bias] }, [g]) => {
    const dy = rows(g!);
    return [reshape(matmul(dy, weight!), x!.shape), matmul(dy, rows(x!), { transposeA: true }), bias && sum(dy, [0])];
  },
});
