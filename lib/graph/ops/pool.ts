import { check, defineOp, emit1, floatOf, type Shape, type Tensor } from '../tensor.ts';
import { mean } from './reduce.ts';

export interface PoolOptions {
  /** [kh, kw] pixels. */
  readonly kernel: readonly [number, number];
  /** [sh, sw] pixels; the kernel's size when left out. */
  readonly stride?: readonly [number, number];
}

/**
 * Mean of each window; windows that would stick out are left out.
 *
 * @param x [N, H, W, C]
 * @returns [N, floor((H - kh) / sh) + 1, floor((W - kw) / sw) + 1, C]
 */
export const avgPool2d = (x: Tensor, { kernel, stride = kernel }: PoolOptions): Tensor =>
  emit1('avgPool2d', [x], { kernel, stride });
defineOp('avgPool2d', {
  infer: ([x], attrs) => [{ shape: pooledShape(x, attrs, [0, 0, 0, 0]), dtype: floatOf(x) }],
  vjp: ({ inputs: [x], attrs }, [g]) => [emit1('avgPool2dGrad', [g!], { ...attrs, size: x!.shape.slice(1, 3) })],
});
defineOp('avgPool2dGrad', {
  infer: ([dy], { size }) => [{ shape: [dy.shape[0], ...(size as Shape), dy.shape[3]], dtype: floatOf(dy) }],
  vjp: ({ attrs: { kernel, stride } }, [g]) => [emit1('avgPool2d', [g!], { kernel, stride })],
});

/**
 * Maximum of each window; the gradient goes to the first pixel, in reading order, that holds it. NaN wins.
 *
 * @param x [N, H, W, C]
 * @param options.padding [top, left, bottom, right] pixels that never win, each under the kernel's extent
 */
export const maxPool2d = (
  x: Tensor,
  {
    kernel,
    stride = kernel,
    padding = [0, 0, 0, 0],
  }: PoolOptions & { padding?: readonly [number, number, number, number] },
): Tensor => emit1('maxPool2d', [x], { kernel, stride, padding });
defineOp('maxPool2d', {
  infer: ([x], attrs) => [{ shape: pooledShape(x, attrs, attrs.padding as Shape), dtype: floatOf(x) }],
  vjp: ({ inputs: [x], attrs }, [g]) => [emit1('maxPool2dGrad', [x, g], attrs)],
});
defineOp('maxPool2dGrad', { infer: ([x]) => [{ shape: x.shape, dtype: floatOf(x) }] });

/** Mean over all pixels: [N, H, W, C] to [N, C]. */
export const globalAvgPool = (x: Tensor): Tensor => mean(x, [1, 2]);

function pooledShape(x: Tensor, attrs: Readonly<Record<string, unknown>>, [top, left, bottom, right]: Shape): Shape {
  const [[kh, kw], [sh, sw]] = [attrs.kernel as Shape, attrs.stride as Shape];
  check(x.rank === 4, 'needs images [N, H, W, C]');
  const [n, h, w, c] = x.shape;
  check(
    [kh, kw, sh, sw].every((v) => Number.isInteger(v) && v > 0),
    'needs a whole kernel and stride > 0',
  );
  check(
    [top, bottom].every((p) => p >= 0 && p < kh) && [left, right].every((p) => p >= 0 && p < kw),
    'needs padding under the kernel',
  );
  const out = (size: number, kernel: number, stride: number) => Math.floor((size - kernel) / stride) + 1;
  const [oh, ow] = [out(h + top + bottom, kh, sh), out(w + left + right, kw, sw)];
  check(oh > 0 && ow > 0, `a ${kh}x${kw} window does not fit into ${h}x${w} pixels`);
  return [n, oh, ow, c];
}
