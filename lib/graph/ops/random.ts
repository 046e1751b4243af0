import type { DType } from '../dtype.ts';
import { check, defineOp, emit1, type OpRule, type Shape, type Tensor } from '../tensor.ts';

/**
 * `shape` numbers uniform in [0, 1): multiples of 2^-24, by Philox4x32-10.
 *
 * `state` is an i32 [4] of seed (low word, high word), stream and offset. The same state gives the same bits on
 * every backend; another stream or offset gives independent numbers.
 */
export const randomUniform = (state: Tensor, shape: Shape, dtype: DType = 'f32'): Tensor =>
  emit1('randomUniform', [state], { shape, dtype });

/** `shape` numbers of the standard normal distribution, by Box-Muller; `state` as in {@link randomUniform}. */
export const randomNormal = (state: Tensor, shape: Shape, dtype: DType = 'f32'): Tensor =>
  emit1('randomNormal', [state], { shape, dtype });

const drawn: OpRule = {
  infer: ([state], { shape, dtype }) => {
    check(
      state.dtype === 'i32' && state.size === 4,
      'the state must be an i32 [4]: seed low, seed high, stream, offset',
    );
    return [{ shape: shape as Shape, dtype: dtype as DType }];
  },
};
defineOp('randomUniform', drawn);
defineOp('randomNormal', drawn);
