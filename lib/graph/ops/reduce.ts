import { check, defineOp, emit1, floatOf, type Shape, type Spec, type Tensor } from '../tensor.ts';
import { affine, div, equal, mul } from './elementwise.ts';
import { broadcastTo, reshape } from './layout.ts';

/** `axes` counted from the start, ascending; all axes when left out. Negative ones count from the end. */
const axesOf = (x: Tensor, axes?: readonly number[]): number[] =>
  (axes ?? x.shape.map((_, i) => i)).map((a) => (a < 0 ? a + x.rank : a)).sort((a, b) => a - b);

const keptShape = (shape: Shape, axes: readonly number[]): number[] => shape.map((d, i) => (axes.includes(i) ? 1 : d));

function reducedSpec(x: Tensor, axes: readonly number[], keepDims: boolean): Spec {
  const valid = axes.every((a, i) => Number.isInteger(a) && a >= 0 && a < x.rank && a !== axes[i - 1]);
  check(valid, `axes [${axes.join(',')}] are not distinct axes of rank ${x.rank}`);
  const shape = keepDims ? keptShape(x.shape, axes) : x.shape.filter((_, i) => !axes.includes(i));
  return { shape, dtype: floatOf(x) };
}

/**
 * Sum over `axes` (all of them by default; negative ones count from the end). Without `keepDims` the axes go, so
 * that a sum over all has the shape [].
 */
export const sum = (x: Tensor, axes?: readonly number[], keepDims = false): Tensor =>
  emit1('sum', [x], { axes: axesOf(x, axes), keepDims });
defineOp('sum', {
  infer: ([x], attrs) => [reducedSpec(x, attrs.axes as number[], attrs.keepDims as boolean)],
  vjp: ({ inputs: [x], attrs }, [g]) => [
    broadcastTo(reshape(g!, keptShape(x!.shape, attrs.axes as number[])), x!.shape),
  ],
});

/** Arithmetic mean over `axes`; see {@link sum}. */
export function mean(x: Tensor, axes?: readonly number[], keepDims = false): Tensor {
  const y = sum(x, axes, keepDims);
  return affine(y, y.size / x.size);
}

/** Largest element over `axes` (see {@link sum}); NaN where one is. Ties share the gradient equally. */
export const amax = (x: Tensor, axes?: readonly number[], keepDims = false): Tensor =>
  emit1('amax', [x], { axes: axesOf(x, axes), keepDims });
defineOp('amax', {
  infer: ([x], attrs) => {
    const axes = attrs.axes as number[];
    check(
      axes.every((a) => x.shape[a] !== 0),
      'an empty axis has no largest element',
    );
    return [reducedSpec(x, axes, attrs.keepDims as boolean)];
  },
  vjp: ({ inputs: [x], outputs: [y], attrs }, [g]) => {
    const axes = attrs.axes as number[];
    const kept = keptShape(x!.shape, axes);
    const largest = equal(x!, reshape(y, kept));
    return [mul(largest, div(reshape(g!, kept), sum(largest, axes, true)))];
  },
});

/** Index (i32) of the largest element along `axis`, which goes; the first one where several are equal. */
export const argmax = (x: Tensor, axis: number): Tensor =>
  emit1('argmax', [x], { axis: axis < 0 ? axis + x.rank : axis });
defineOp('argmax', {
  infer: ([x], attrs) => {
    const axis = attrs.axis as number;
    const { shape } = reducedSpec(x, [axis], false);
    check(x.shape[axis] > 0, 'an empty axis has no largest element');
    return [{ shape, dtype: 'i32' }];
  },
});
