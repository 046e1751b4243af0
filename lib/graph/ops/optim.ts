import { statisticsOf } from '../dtype.ts';
import {
  check,
  defineOp,
  emit1,
  emitNode,
  floatOf,
  type Node,
  type OpRule,
  sameShape,
  type Tensor,
} from '../tensor.ts';

const scalarOver: OpRule['infer'] = (tensors) => {
  check(tensors.length > 0, 'needs at least one tensor');
  return [{ shape: [1], dtype: statisticsOf(floatOf(...tensors)) }];
};

/** Euclidean norm over all elements of all `tensors`, [1], at least float32; accumulated in float64. */
export const globalNorm = (tensors: readonly Tensor[]): Tensor => emit1('globalNorm', tensors);
defineOp('globalNorm', { infer: scalarOver });

/** 1 if no element of `tensors` is infinite or NaN, else 0; [1]. */
export const allFinite = (tensors: readonly Tensor[]): Tensor => emit1('allFinite', tensors);
defineOp('allFinite', { infer: scalarOver });

/** Per step, read from device memory: all [1]. */
export interface AdamWFeeds {
  lr: Tensor;
  /** Counts from 1, as a float: corrects the bias of the moments. */
  step: Tensor;
  /** Multiplies every gradient: a clipping factor, or one over the number of accumulated batches. */
  scale: Tensor;
  /** Nothing is written unless this is positive. */
  ok: Tensor;
}

/** A parameter, its gradient and its two moments, all of one shape. The gradient is only read. */
export interface AdamWGroup {
  param: Tensor;
  grad: Tensor;
  m: Tensor;
  v: Tensor;
  weightDecay: number;
}

/** One AdamW step (decoupled weight decay, bias correction; PyTorch's formula) over all groups, in place. */
export const adamw = (
  feeds: AdamWFeeds,
  groups: readonly AdamWGroup[],
  { beta1 = 0.9, beta2 = 0.999, eps = 1e-8 } = {},
): Node =>
  emitNode(
    'adamw',
    [feeds.lr, feeds.step, feeds.scale, feeds.ok, ...groups.flatMap(({ param, grad, m, v }) => [param, grad, m, v])],
    { beta1, beta2, eps, weightDecay: groups.map((g) => g.weightDecay) },
  );

/** average = decay * average + (1 - decay) * value in place, for every pair; nothing unless `ok` is positive. */
export const ema = (decay: Tensor, ok: Tensor, pairs: readonly (readonly [average: Tensor, value: Tensor])[]): Node =>
  emitNode('ema', [decay, ok, ...pairs.flat()]);

/** total += scale * value in place, for every pair. */
export const accumulate = (scale: Tensor, pairs: readonly (readonly [total: Tensor, value: Tensor])[]): Node =>
  emitNode('accumulate', [scale, ...pairs.flat()]);

/** target = value in place, for every pair; nothing unless `ok` is positive. */
export const assign = (ok: Tensor, pairs: readonly (readonly [target: Tensor, value: Tensor])[]): Node =>
  emitNode('assign', [ok, ...pairs.flat()]);

/** An operator without outputs: `scalars` inputs of one element, then groups of `size` tensors of one shape. */
const updating = (scalars: number, size: number): OpRule => ({
  infer: (inputs, { weightDecay }) => {
    const groups = inputs.slice(scalars);
    floatOf(...inputs);
    check(groups.length > 0 && groups.length % size === 0, `needs groups of ${size} tensors`);
    check(
      inputs.slice(0, scalars).every((t) => t.size === 1),
      `the first ${scalars} inputs must have one element`,
    );
    for (const [i, t] of groups.entries()) {
      check(sameShape(t.shape, groups[i - (i % size)].shape), `input ${scalars + i} differs in shape`);
    }
    const decays = weightDecay as readonly number[] | undefined;
    check(!decays || decays.length === groups.length / size, 'needs one weight decay a group');
    return [];
  },
});
defineOp('adamw', updating(4, 4));
defineOp('ema', updating(2, 2));
defineOp('accumulate', updating(1, 2));
defineOp('assign', updating(1, 2));
