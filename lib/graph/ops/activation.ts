import { check, defineOp, emit1, floatOf, sameShape, type Tensor } from '../tensor.ts';
import { gradRule } from './elementwise.ts';

function activation(name: string): (x: Tensor) => Tensor {
  defineOp(name, {
    infer: ([x]) => [{ shape: x.shape, dtype: floatOf(x) }],
    vjp: ({ inputs: [x] }, [g]) => [emit1(`${name}Grad`, [x, g])],
  });
  defineOp(`${name}Grad`, gradRule);
  return (x) => emit1(name, [x]);
}

/** x * sigmoid(x). */
export const silu = activation('silu');

/** x * Phi(x), Phi being the normal distribution function: the erf form, not the tanh approximation. */
export const gelu = activation('gelu');

/** x * sigmoid(1.702 x). */
export const quickGelu = activation('quickGelu');

/** a * gelu(b) for x = [a, b] split in halves along the last axis: [..., 2n] to [..., n]. */
export const geglu = (x: Tensor): Tensor => emit1('geglu', [x]);
defineOp('geglu', {
  infer: ([x]) => {
    const width = x.shape.at(-1) ?? 1;
    check(width % 2 === 0, `needs a last axis of even size, got ${width}`);
    return [{ shape: [...x.shape.slice(0, -1), width / 2], dtype: floatOf(x) }];
  },
  vjp: ({ inputs: [x] }, [g]) => [emit1('gegluGrad', [x, g])],
});
defineOp('gegluGrad', {
  infer: ([x, dy]) => {
    const half = [...x.shape.slice(0, -1), x.shape.at(-1)! / 2];
    check(sameShape(half, dy.shape), 'dy must have half the width of x');
    return [{ shape: x.shape, dtype: floatOf(x, dy) }];
  },
});
