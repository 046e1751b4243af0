import { type Conv2dOptions, conv2d } from '../../lib/graph/ops/conv2d.ts';
import { constant } from '../../lib/graph/tensor.ts';
import { type OpCase, uniforms, valuesOf } from '../support/opcase.ts';

/** A convolution of an image [N, H, W, C] with a kernel [O, kh, kw]. */
const conv = (name: string, x: number[], [out, kh, kw]: number[], options: Conv2dOptions, bias = true): OpCase => ({
  name,
  op: 'conv2d',
  also: ['conv2dGradInput', 'conv2dGradWeight'],
  inputs: {
    x: { shape: x },
    weight: { shape: [out, x[3], kh, kw] },
    ...(bias ? { bias: { shape: [out] } } : {}),
  },
  build: ({ x: image, weight, bias: b }) => conv2d(image, weight, b, options),
});

/** With a weight that never changes: packed once, and by Winograd's algorithm where that pays. */
const frozen = (name: string, x: number[], [out, kh, kw]: number[], options: Conv2dOptions): OpCase => ({
  name: `${name}, frozen`,
  op: 'conv2d',
  also: ['conv2dGradInput'],
  inputs: { x: { shape: x }, bias: { shape: [out] } },
  build: ({ x: image, bias }) => {
    const weight = { shape: [out, x[3], kh, kw] };
    const data = valuesOf(weight, image.dtype, uniforms(out));
    return conv2d(image, constant(data, weight.shape, image.dtype), bias, options);
  },
});

export const cases: OpCase[] = [
  conv('3x3', [1, 6, 5, 8], [12, 3, 3], { padding: 1 }),
  conv('3x3 of three channels, a batch', [3, 7, 9, 3], [5, 3, 3], { padding: 1 }),
  conv('3x3 of one channel to one, no bias', [1, 5, 5, 1], [1, 3, 3], {}, false),
  conv('3x3 of four channels, stride 2 with the padding at the end', [2, 8, 6, 4], [7, 3, 3], {
    stride: 2,
    padding: [0, 0, 1, 1],
  }),
  conv('3x3, stride 2', [1, 9, 7, 5], [33, 3, 3], { stride: 2, padding: 1 }),
  conv('channels over a panel', [1, 5, 4, 40], [35, 3, 3], { padding: 1 }),
  conv('channels of whole panels', [2, 4, 5, 64], [6, 3, 3], { padding: 1 }),
  conv('1x1', [2, 3, 5, 17], [20, 1, 1], {}),
  conv('1x1, stride 2', [1, 5, 6, 6], [4, 1, 1], { stride: 2 }),
  conv('14x14 patches', [1, 28, 42, 3], [5, 14, 14], { stride: 14 }),
  conv('14x14 patches, not to the edge', [1, 29, 31, 2], [3, 14, 14], { stride: 14 }),
  conv('5x3, strides and paddings all different', [2, 6, 11, 3], [4, 5, 3], { stride: [2, 3], padding: [2, 1, 0, 3] }),
  conv('a stride beyond the kernel', [1, 7, 8, 2], [3, 2, 2], { stride: [3, 4] }),
  conv('padding beyond the kernel', [1, 2, 3, 4], [2, 2, 2], { padding: 3 }),
  conv('a kernel as large as the image', [2, 4, 3, 6], [9, 4, 3], {}),
  conv('3x3 by tiles', [1, 27, 29, 32], [48, 3, 3], { padding: 1 }),
  conv('3x3 by tiles, a batch, padded on two sides', [3, 14, 15, 48], [32, 3, 3], { padding: [0, 2, 1, 0] }),
  frozen('3x3', [1, 6, 5, 8], [12, 3, 3], { padding: 1 }),
  frozen('3x3, stride 2', [1, 9, 7, 5], [33, 3, 3], { stride: 2, padding: [0, 0, 1, 1] }),
  frozen('14x14 patches', [1, 28, 42, 3], [5, 14, 14], { stride: 14 }),
  frozen('3x3 by tiles', [1, 23, 25, 32], [48, 3, 3], { padding: 1 }),
  frozen('3x3 by few tiles, whose outputs threads divide', [1, 14, 13, 32], [96, 3, 3], { padding: 1 }),
  frozen('3x3 by tiles, a batch, padded on two sides', [3, 14, 11, 48], [32, 3, 3], { padding: [0, 2, 1, 0] }),
];
