import { check, defineOp, emit1, floatOf, type OpRule, type Tensor } from '../tensor.ts';
import { gradRule } from './elementwise.ts';

const rowwise: OpRule['infer'] = ([x]) => {
  check(x.rank > 0 && x.shape.at(-1)! > 0, 'needs a last axis of at least one element');
  return [{ shape: x.shape, dtype: floatOf(x) }];
};

/** exp(x) / sum(exp(x)) over the last axis, computed from x - max(x). */
export const softmax = (x: Tensor): Tensor => emit1('softmax', [x]);
defineOp('softmax', { infer: rowwise, vjp: ({ outputs: [y] }, [g]) => [emit1('softmaxGrad', [y, g])] });

/** x - log(sum(exp(x))) over the last axis. */
export const logSoftmax = (x: Tensor): Tensor => emit1('logSoftmax', [x]);
defineOp('logSoftmax', { infer: rowwise, vjp: ({ outputs: [y] }, [g]) => [emit1('logSoftmaxGrad', [y, g])] });

defineOp('softmaxGrad', gradRule);
defineOp('logSoftmaxGrad', gradRule);
