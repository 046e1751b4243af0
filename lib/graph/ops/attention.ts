import { statisticsOf } from '../dtype.ts';
import { check, defineOp, emit, floatOf, type Tensor } from '../tensor.ts';

export interface AttentionOptions {
  readonly heads: number;
  /** Factor of the scores before the bias and the softmax; 1 / sqrt(head size) by default. */
  readonly scale?: number;
  /** Whether token i attends to tokens 0 to i only. */
  readonly causal?: boolean;
  /** Added to the scaled scores: [G, heads or 1, Lq, Lk], where batch element n takes entry n % G. */
  readonly bias?: Tensor;
}

/**
 * Multi-head attention, softmax(scale q k^T + bias) v for each head, without storing the scores.
 *
 * @param q queries [N, Lq, heads * D], head-major along the last axis
 * @param k keys [N, Lk, heads * D]
 * @param v values [N, Lk, heads * D]
 * @returns [N, Lq, heads * D]
 */
export function attention(
  q: Tensor,
  k: Tensor,
  v: Tensor,
  { heads, scale, causal = false, bias }: AttentionOptions,
): Tensor {
  const factor = scale ?? 1 / Math.sqrt(q.shape.at(-1)! / heads);
  return emit('attention', [q, k, v, bias], { heads, scale: factor, causal })[0];
}
// The second output, [N, heads, Lq], is each row's log-sum-exp: from it the backward pass recomputes the probabilities.
defineOp('attention', {
  infer: ([q, k, v, bias], attrs) => {
    const heads = attrs.heads as number;
    check(q.rank === 3 && k.rank === 3 && v.rank === 3, 'needs q, k and v [N, L, heads * D]');
    const [n, lq, width] = q.shape;
    const lk = k.shape[1];
    check(
      Number.isInteger(heads) && heads > 0 && width % heads === 0,
      `${width} features do not split into ${heads} heads`,
    );
    for (const t of [k, v]) {
      check(t.shape[0] === n && t.shape[1] === lk && t.shape[2] === width, 'k and v must fit q and each other');
    }
    check(lk > 0, 'needs at least one key');
    check(!attrs.causal || lq === lk, 'causal attention needs as many keys as queries');
    if (bias) {
      const [groups, biasHeads, rows, columns] = bias.shape;
      check(bias.rank === 4 && rows === lq && columns === lk, `needs a bias [G, ${heads} or 1, ${lq}, ${lk}]`);
      check(biasHeads === heads || biasHeads === 1, `the bias has ${biasHeads} heads, not ${heads} or 1`);
      check(groups > 0 && n % groups === 0, `a bias for ${groups} batch elements does not divide a batch of ${n}`);
    }
    const dtype = floatOf(q, k, v, bias);
    return [
      { shape: q.shape, dtype },
      { shape: [n, heads, lq], dtype: statisticsOf(dtype) },
    ];
  },
  vjp: ({ inputs: [q, k, v, bias], outputs: [y, lse], attrs }, [g]) => {
    const [dq, dk, dv, dbias] = emit('attentionGrad', [q, k, v, bias, y, lse, g], attrs);
    return [dq, dk, dv, bias && dbias];
  },
});

defineOp('attentionGrad', {
  infer: ([q, k, v, bias]) => {
    const dtype = floatOf(q);
    // Without a bias the last output is empty.
    return [q, k, v].map((t) => ({ shape: t.shape, dtype })).concat({ shape: bias ? bias.shape : [0], dtype });
  },
});
