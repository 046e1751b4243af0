import { check, defineOp, emit1, floatOf, type Shape, sameShape, type Tensor } from '../tensor.ts';
import { sum } from './reduce.ts';

export interface Conv2dOptions {
  /** Steps down and to the right, in pixels; 1 by default. */
  readonly stride?: number | readonly [number, number];
  /** Zero pixels around the image, on all sides or [top, left, bottom, right]; 0 by default. */
  readonly padding?: number | readonly [number, number, number, number];
}

interface Geometry {
  readonly stride: readonly [number, number];
  readonly padding: readonly [number, number, number, number];
}

/**
 * Two-dimensional cross-correlation.
 *
 * @param x image [N, H, W, C]
 * @param weight [O, C, kernel height, kernel width]
 * @param bias [O]
 * @returns [N, OH, OW, O] with OH = floor((H + top + bottom - kernel height) / stride) + 1
 */
export function conv2d(
  x: Tensor,
  weight: Tensor,
  bias?: Tensor,
  { stride = 1, padding = 0 }: Conv2dOptions = {},
): Tensor {
  return emit1('conv2d', [x, weight, bias], {
    stride: typeof stride === 'number' ? [stride, stride] : stride,
    padding: typeof padding === 'number' ? [padding, padding, padding, padding] : padding,
  });
}
defineOp('conv2d', {
  infer: ([x, weight, bias], attrs) => {
    check(x.rank === 4 && weight.rank === 4, 'needs an image [N, H, W, C] and a weight [O, C, kh, kw]');
    const [n, h, w, channels] = x.shape;
    const [out, taken, kh, kw] = weight.shape;
    check(channels === taken, `the image has ${channels} channels, the weight takes ${taken}`);
    check(!bias || sameShape(bias.shape, [out]), `needs a bias [${out}]`);
    const [oh, ow] = outputSize([h, w], [kh, kw], attrs as unknown as Geometry);
    return [{ shape: [n, oh, ow, out], dtype: floatOf(x, weight, bias) }];
  },
  vjp: ({ inputs: [x, weight, bias], attrs: { stride, padding } }, [g]) => [
    emit1('conv2dGradInput', [g, weight], { stride, padding, size: x!.shape.slice(1, 3) }),
    emit1('conv2dGradWeight', [x, g], { stride, padding, kernel: weight!.shape.slice(2) }),
    bias && sum(g!, [0, 1, 2]),
  ],
});

function outputSize(image: Shape, kernel: Shape, { stride, padding }: Geometry): number[] {
  check(stride.length === 2 && stride.every((s) => Number.isInteger(s) && s > 0), 'strides are whole numbers above 0');
  check(
    padding.length === 4 && padding.every((p) => Number.isInteger(p) && p >= 0),
    'paddings are whole numbers, not negative',
  );
  const size = [0, 1].map((i) => Math.floor((image[i] + padding[i] + padding[i + 2] - kernel[i]) / stride[i]) + 1);
  check(size[0] > 0 && size[1] > 0, `the ${kernel.join('x')} kernel is larger than the padded image`);
  return size;
}

defineOp('conv2dGradInput', {
  infer: ([dy, weight], attrs) => {
    const [out, channels, ...kernel] = weight.shape;
    const size = attrs.size as number[];
    const [oh, ow] = outputSize(size, kernel, attrs as unknown as Geometry);
    check(sameShape(dy.shape, [dy.shape[0], oh, ow, out]), `dy must have ${oh}x${ow} pixels of ${out} channels`);
    return [{ shape: [dy.shape[0], ...size, channels], dtype: floatOf(dy, weight) }];
  },
});

defineOp('conv2dGradWeight', {
  infer: ([x, dy], attrs) => {
    const [n, h, w, channels] = x.shape;
    const kernel = attrs.kernel as number[];
    const [oh, ow] = outputSize([h, w], kernel, attrs as unknown as Geometry);
    check(sameShape(dy.shape.slice(0, 3), [n, oh, ow]), `dy must have ${n} images of ${oh}x${ow} pixels`);
    return [{ shape: [dy.shape[3], channels, ...kernel], dtype: floatOf(x, dy) }];
  },
});
