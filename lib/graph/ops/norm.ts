import { statisticsOf } from '../dtype.ts';
import { check, defineOp, emit, emit1, floatOf, type Spec, sameShape, type Tensor } from '../tensor.ts';

/**
 * Group normalisation over each image's positions and each group's channels (biased variance), then the affine map.
 *
 * @param x [N, ..., C], such as NHWC images or [N, L, C] tokens
 * @param gamma scale [C]; `beta` shift [C]; both float32 where x has 16 bits
 * @param options.silu applies SiLU to the result in the same pass over memory
 */
export function groupNorm(
  x: Tensor,
  gamma: Tensor,
  beta: Tensor,
  { groups, eps, silu = false }: { groups: number; eps: number; silu?: boolean },
): Tensor {
  return emit1('groupNorm', [x, gamma, beta], { groups, eps, silu });
}
defineOp('groupNorm', {
  infer: ([x, gamma, beta], attrs) => {
    const groups = attrs.groups as number;
    check(x.rank >= 2, 'needs x [N, ..., C]');
    checkAffine(x, gamma, beta);
    check(groups > 0 && gamma.size % groups === 0, `${gamma.size} channels do not split into ${groups} groups`);
    const stats: Spec = { shape: [x.shape[0], groups], dtype: gamma.dtype };
    return [specOf(x), stats, stats];
  },
  vjp: ({ inputs: [x, gamma, beta], outputs: [, mean, rstd], attrs: { groups, silu } }, [g]) => [
    ...emit('groupNormGrad', [x, gamma, beta, mean, rstd, g], { groups, silu }),
  ],
});
defineOp('groupNormGrad', { infer: ([x, gamma]) => [x, gamma, gamma].map(specOf) });

/**
 * Normalisation over the last axis (biased variance), then the affine map.
 *
 * @param x [..., C]
 * @param gamma scale [C]; `beta` shift [C]; both float32 where x has 16 bits
 */
export const layerNorm = (x: Tensor, gamma: Tensor, beta: Tensor, { eps }: { eps: number }): Tensor =>
  emit1('layerNorm', [x, gamma, beta], { eps });
defineOp('layerNorm', {
  infer: ([x, gamma, beta]) => {
    check(x.rank >= 1, 'needs x [..., C]');
    checkAffine(x, gamma, beta);
    const stats: Spec = { shape: x.shape.slice(0, -1), dtype: gamma.dtype };
    return [specOf(x), stats, stats];
  },
  vjp: ({ inputs: [x, gamma], outputs: [, mean, rstd] }, [g]) => [...emit('layerNormGrad', [x, gamma, mean, rstd, g])],
});
defineOp('layerNormGrad', { infer: ([x, gamma]) => [x, gamma, gamma].map(specOf) });

const specOf = ({ shape, dtype }: Tensor): Spec => ({ shape, dtype });

function checkAffine(x: Tensor, gamma: Tensor, beta: Tensor): void {
  const dtype = statisticsOf(floatOf(x));
  check(floatOf(gamma, beta) === dtype, `x of ${x.dtype} needs gamma and beta of ${dtype}`);
  const channels = x.shape.slice(-1);
  check(
    sameShape(gamma.shape, channels) && sameShape(beta.shape, channels),
    `gamma and beta must have the shape [${channels}]`,
  );
}
