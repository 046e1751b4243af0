import { check, defineOp, emit1, floatOf, type Shape, type Tensor } from '../tensor.ts';

export type ResizeMode = 'nearest' | 'bilinear' | 'bicubic';

/**
 * Images brought to another size, with pixel centres at half-integers (PyTorch's `interpolate` with align_corners off).
 *
 * @param x [N, H, W, C]
 * @param size the new [H, W]
 * @param options.mode `bicubic` uses a = -0.75, with antialias -0.5
 * @param options.antialias widens the filter by the ratio where the image shrinks; not for `nearest`
 */
export function resize(
  x: Tensor,
  [h, w]: readonly [number, number],
  { mode, antialias = false }: { mode: ResizeMode; antialias?: boolean },
): Tensor {
  // Every mode is the identity at equal size.
  return x.shape[1] === h && x.shape[2] === w ? x : emit1('resize', [x], { size: [h, w], mode, antialias });
}

const infer = ([x]: readonly Tensor[], attrs: Readonly<Record<string, unknown>>) => {
  const [h, w] = attrs.size as Shape;
  check(x.rank === 4 && x.size > 0, 'needs images [N, H, W, C] with pixels');
  check(Number.isInteger(h) && Number.isInteger(w) && h > 0 && w > 0, `cannot make images of ${h}x${w}`);
  check(attrs.mode !== 'nearest' || !attrs.antialias, 'nearest has no antialias');
  return [{ shape: [x.shape[0], h, w, x.shape[3]], dtype: floatOf(x) }];
};
defineOp('resize', {
  infer,
  vjp: ({ inputs: [x], attrs }, [g]) => [emit1('resizeGrad', [g!], { ...attrs, size: x!.shape.slice(1, 3) })],
});
// The adjoint of the linear map that takes `size` to dy's size.
defineOp('resizeGrad', {
  infer,
  vjp: ({ inputs: [dy], attrs }, [g]) => [emit1('resize', [g!], { ...attrs, size: dy!.shape.slice(1, 3) })],
});
