// What judges and their losses are made of: operators that read features or images once and leave a few numbers.
import { statisticsOf } from '../dtype.ts';
import { check, defineOp, emit, emit1, floatOf, type Spec, sameShape, type Tensor } from '../tensor.ts';
import { affine, cast, div, exp, maximum, mul, sign, sqrt, square, sub } from './elementwise.ts';
import { reshape } from './layout.ts';
import { sum } from './reduce.ts';
import { logSoftmax } from './softmax.ts';

const widened = (x: Tensor): Tensor => cast(x, statisticsOf(x.dtype));

/**
 * Cosines of the angles between each vector of `a` and each of `b`, in float32 at least. A norm under `eps` counts as `eps`.
 *
 * @param a [..., K, E]; `b` [..., L, E]
 * @returns [..., K, L]
 */
export const cosines = (a: Tensor, b: Tensor, eps = 1e-8): Tensor => emit1('cosines', [a, b], { eps });
defineOp('cosines', {
  infer: ([a, b]) => {
    const dtype = statisticsOf(floatOf(a, b));
    const lead = a.shape.slice(0, -2);
    check(a.rank >= 2 && sameShape(lead, b.shape.slice(0, -2)), 'needs a [..., K, E] and b [..., L, E]');
    check(a.shape.at(-1) === b.shape.at(-1), `vectors of ${a.shape.at(-1)} and ${b.shape.at(-1)} make no angle`);
    const [k, l] = [a, b].map((t) => t.shape[t.rank - 2]);
    return [[k, l], [k], [l]].map((rest): Spec => ({ shape: [...lead, ...rest], dtype }));
  },
  vjp: ({ inputs, outputs, attrs }, [g]) => [...emit('cosinesGrad', [...inputs, ...outputs, g], attrs)],
});
defineOp('cosinesGrad', { infer: ([a, b]) => [a, b].map(({ shape, dtype }) => ({ shape, dtype })) });

/** Cosine of the angle between a and b over the last axis, which goes; both of one shape. See {@link cosines}. */
export function cosineSimilarity(a: Tensor, b: Tensor, eps?: number): Tensor {
  const lead = a.shape.slice(0, -1);
  const rows = ({ shape }: Tensor): number[] => [...shape.slice(0, -1), 1, shape[shape.length - 1]];
  return reshape(cosines(reshape(a, rows(a)), reshape(b, rows(b)), eps), lead);
}

/**
 * Cross entropy of softmax(logits) over the last axis, averaged over all rows, [], in float32 at least.
 *
 * @param logits [..., classes]
 * @param labels class numbers, i32 [...]; or probabilities of the logits' shape and dtype. A row whose number names no class
 *   counts as 0
 * @param logScale [], float32 at least: the logarithm of a factor of the logits (CLIP's inverse temperature)
 */
export const crossEntropy = (logits: Tensor, labels: Tensor, logScale?: Tensor): Tensor =>
  emit1('crossEntropy', [logits, labels, logScale]);
defineOp('crossEntropy', {
  infer: ([x, labels, logScale]) => {
    const dtype = statisticsOf(floatOf(x));
    check(x.rank > 0 && x.size > 0, 'needs rows of at least one class');
    if (labels.dtype === 'i32') check(sameShape(labels.shape, x.shape.slice(0, -1)), 'needs one class number a row');
    else check(sameShape(labels.shape, x.shape) && labels.dtype === x.dtype, 'needs probabilities like the logits');
    check(!logScale || (logScale.size === 1 && logScale.dtype === dtype), `needs a scale of one ${dtype}`);
    return [{ shape: [], dtype }];
  },
  vjp: ({ inputs: [x, labels, logScale] }, [g]) => {
    const [dx, dScale] = emit('crossEntropyGrad', [x, labels, logScale, g]);
    if (labels!.dtype === 'i32') return [dx, undefined, logScale && reshape(dScale, logScale.shape)];
    // What labels that are themselves computed get: by composition, since no trainer asks for it.
    const wide = widened(x!);
    const scaled = logScale ? mul(wide, exp(reshape(logScale, []))) : wide;
    const rows = x!.size / x!.shape.at(-1)!;
    const dLabels = cast(affine(mul(g!, logSoftmax(scaled)), -1 / rows), labels!.dtype);
    return [dx, dLabels, logScale && reshape(dScale, logScale.shape)];
  },
});
defineOp('crossEntropyGrad', {
  infer: ([x, , , dy]) => [
    { shape: x.shape, dtype: x.dtype },
    { shape: [], dtype: dy.dtype },
  ],
});

/**
 * How far the directions of two images' features lie apart (LPIPS: Zhang et al. 2018, formula 1): the mean over positions of
 * sum(weight (a / (|a| + 1e-10) - b / (|b| + 1e-10))^2) over channels, [N], in float32 at least. No features at all have no
 * direction: a norm counts as 1e-15 at least, which keeps gradients finite.
 *
 * @param a [N, ..., C]; `b` alike
 * @param weight [C], float32 where a and b have 16 bits
 */
export const directionDistance = (a: Tensor, b: Tensor, weight: Tensor): Tensor =>
  emit1('directionDistance', [a, b, weight]);
defineOp('directionDistance', {
  infer: ([a, b, weight]) => {
    const dtype = statisticsOf(floatOf(a, b));
    check(a.rank >= 2 && sameShape(a.shape, b.shape), 'needs a and b [N, ..., C] of one shape');
    check(sameShape(weight.shape, a.shape.slice(-1)) && weight.dtype === dtype, `needs a weight ${dtype}[C]`);
    check(a.size > 0, 'the mean of no features has no value');
    return [{ shape: [a.shape[0]], dtype }];
  },
  vjp: ({ inputs: [a, b, weight] }, [g]) => [
    emit1('directionDistanceGrad', [a, b, weight, g]),
    emit1('directionDistanceGrad', [b, a, weight, g]),
    weightGrad(a!, b!, g!),
  ],
});
/** The gradient by the first of two features; by the second it is that of both exchanged. */
defineOp('directionDistanceGrad', { infer: ([a]) => [{ shape: a.shape, dtype: a.dtype }] });

/** The gradient by the weight, which published networks keep frozen: by composition. */
function weightGrad(a: Tensor, b: Tensor, g: Tensor): Tensor {
  const [ours, theirs] = [a, b].map((x) => {
    const wide = widened(x);
    return div(wide, affine(sqrt(maximum(sum(square(wide), [-1], true), 1e-30)), 1, 1e-10));
  });
  const lead = a.shape.slice(0, -1);
  const share = reshape(affine(g, a.shape[0] / lead.reduce((x, y) => x * y, 1)), [a.shape[0], ...lead.map(() => 1)]);
  return sum(
    mul(square(sub(ours, theirs)), share),
    lead.map((_, i) => i),
  );
}

export type Pairs = readonly (readonly [a: Tensor, b: Tensor])[];

/**
 * Sum over pairs of tensors, each of one shape, of the mean of |a - b|^2, or with `absolute` of |a - b|; [], in float32 at least.
 */
export const meanError = (pairs: Pairs, { absolute = false } = {}): Tensor =>
  emit1('meanError', pairs.flat(), { absolute });
defineOp('meanError', {
  infer: (tensors) => {
    check(tensors.length > 0, 'needs at least one pair');
    const dtype = statisticsOf(floatOf(...tensors));
    for (let i = 0; i < tensors.length; i += 2) {
      check(sameShape(tensors[i].shape, tensors[i + 1].shape), 'needs pairs of one shape');
      check(tensors[i].size > 0, 'the mean of nothing has no value');
    }
    return [{ shape: [], dtype }];
  },
  // One chain for each tensor that is wanted, which reads a and b and writes the gradient: no kernel could move less.
  vjp: ({ inputs, attrs: { absolute } }, [g]) =>
    inputs.map((x, i) => {
      const apart = sub(widened(x!), widened(inputs[i ^ 1]!));
      return cast(affine(mul(absolute ? sign(apart) : apart, g!), (absolute ? 1 : 2) / x!.size), x!.dtype);
    }),
});

/** Mean of (a - b)^2 over all elements, [], in float32 at least. */
export const mseLoss = (a: Tensor, b: Tensor): Tensor => meanError([[a, b]]);

/** Mean of |a - b| over all elements, [], in float32 at least. */
export const l1Loss = (a: Tensor, b: Tensor): Tensor => meanError([[a, b]], { absolute: true });
