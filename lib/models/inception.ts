// The Inception v3 that the Frechet inception distance is defined by (Szegedy et al. 2015, in TensorFlow's variant of December
// 2015), under the keys of pytorch-fid's `pt_inception-2015-12-05-6726825d.pth`.
import { cast, mul, relu } from '../graph/ops/elementwise.ts';
import { concat, pad } from '../graph/ops/layout.ts';
import { avgPool2d, globalAvgPool, maxPool2d } from '../graph/ops/pool.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { BatchNorm, Conv2d, type ConvOptions } from '../nn/layers.ts';
import { Layer, Module } from '../nn/module.ts';

type Kernel = number | readonly [number, number];

/** Convolution, norm, ReLU. */
class BasicConv2d extends Layer {
  readonly conv: Conv2d;
  readonly bn: BatchNorm;

  constructor(inputs: number, outputs: number, kernel: Kernel, options: ConvOptions = {}) {
    super();
    this.conv = new Conv2d(inputs, outputs, kernel, { ...options, bias: false });
    this.bn = new BatchNorm(outputs, 1e-3);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => relu(this.bn.forward(this.conv.forward(x))));
  }
}

/** As large as its input. */
function same(inputs: number, outputs: number, kernel: Kernel): BasicConv2d {
  const [height, width] = typeof kernel === 'number' ? [kernel, kernel] : kernel;
  const [y, x] = [(height - 1) / 2, (width - 1) / 2];
  return new BasicConv2d(inputs, outputs, kernel, { padding: [y, x, y, x] });
}

/** Half as large, without padding. */
const half = (inputs: number, outputs: number): BasicConv2d => new BasicConv2d(inputs, outputs, 3, { stride: 2 });

const shrink = (x: Tensor): Tensor => maxPool2d(x, { kernel: [3, 3], stride: [2, 2] });

/** Mean of the pixels around each one, 3 x 3 without those beyond the border. */
function surroundings(x: Tensor): Tensor {
  const [, h, w] = x.shape;
  const within = (at: number, size: number): number => Math.min(at + 1, size - 1) - Math.max(at - 1, 0) + 1;
  const shares = Float32Array.from({ length: h * w }, (_, i) => 9 / (within(Math.floor(i / w), h) * within(i % w, w)));
  const means = avgPool2d(pad(x, [0, 1, 1, 0], [0, 1, 1, 0]), { kernel: [3, 3], stride: [1, 1] });
  return mul(means, cast(constant(shares, [1, h, w, 1], 'f32'), x.dtype));
}

/** Largest of the pixels around each one, 3 x 3. */
const largest = (x: Tensor): Tensor => maxPool2d(x, { kernel: [3, 3], stride: [1, 1], padding: [1, 1, 1, 1] });

const run = (x: Tensor, ...layers: Layer[]): Tensor => layers.reduce((y, layer) => layer.forward(y), x);

class InceptionA extends Layer {
  readonly branch1x1: BasicConv2d;
  readonly branch5x5_1: BasicConv2d;
  readonly branch5x5_2 = same(48, 64, 5);
  readonly branch3x3dbl_1: BasicConv2d;
  readonly branch3x3dbl_2 = same(64, 96, 3);
  readonly branch3x3dbl_3 = same(96, 96, 3);
  readonly branch_pool: BasicConv2d;

  constructor(inputs: number, pool: number) {
    super();
    this.branch1x1 = same(inputs, 64, 1);
    this.branch5x5_1 = same(inputs, 48, 1);
    this.branch3x3dbl_1 = same(inputs, 64, 1);
    this.branch_pool = same(inputs, pool, 1);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() =>
      concat(
        [
          run(x, this.branch1x1),
          run(x, this.branch5x5_1, this.branch5x5_2),
          run(x, this.branch3x3dbl_1, this.branch3x3dbl_2, this.branch3x3dbl_3),
          run(surroundings(x), this.branch_pool),
        ],
        -1,
      ),
    );
  }
}

class InceptionB extends Layer {
  readonly branch3x3: BasicConv2d;
  readonly branch3x3dbl_1: BasicConv2d;
  readonly branch3x3dbl_2 = same(64, 96, 3);
  readonly branch3x3dbl_3 = half(96, 96);

  constructor(inputs: number) {
    super();
    this.branch3x3 = half(inputs, 384);
    this.branch3x3dbl_1 = same(inputs, 64, 1);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const double = run(x, this.branch3x3dbl_1, this.branch3x3dbl_2, this.branch3x3dbl_3);
      return concat([run(x, this.branch3x3), double, shrink(x)], -1);
    });
  }
}

class InceptionC extends Layer {
  readonly branch1x1 = same(768, 192, 1);
  readonly branch7x7_1: BasicConv2d;
  readonly branch7x7_2: BasicConv2d;
  readonly branch7x7_3: BasicConv2d;
  readonly branch7x7dbl_1: BasicConv2d;
  readonly branch7x7dbl_2: BasicConv2d;
  readonly branch7x7dbl_3: BasicConv2d;
  readonly branch7x7dbl_4: BasicConv2d;
  readonly branch7x7dbl_5: BasicConv2d;
  readonly branch_pool = same(768, 192, 1);

  /** @param width of the seven-pixel convolutions */
  constructor(width: number) {
    super();
    this.branch7x7_1 = same(768, width, 1);
    this.branch7x7_2 = same(width, width, [1, 7]);
    this.branch7x7_3 = same(width, 192, [7, 1]);
    this.branch7x7dbl_1 = same(768, width, 1);
    this.branch7x7dbl_2 = same(width, width, [7, 1]);
    this.branch7x7dbl_3 = same(width, width, [1, 7]);
    this.branch7x7dbl_4 = same(width, width, [7, 1]);
    this.branch7x7dbl_5 = same(width, 192, [1, 7]);
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const single = run(x, this.branch7x7_1, this.branch7x7_2, this.branch7x7_3);
      const { branch7x7dbl_1: a, branch7x7dbl_2: b, branch7x7dbl_3: c, branch7x7dbl_4: d, branch7x7dbl_5: e } = this;
      return concat(
        [run(x, this.branch1x1), single, run(x, a, b, c, d, e), run(surroundings(x), this.branch_pool)],
        -1,
      );
    });
  }
}

class InceptionD extends Layer {
  readonly branch3x3_1 = same(768, 192, 1);
  readonly branch3x3_2 = half(192, 320);
  readonly branch7x7x3_1 = same(768, 192, 1);
  readonly branch7x7x3_2 = same(192, 192, [1, 7]);
  readonly branch7x7x3_3 = same(192, 192, [7, 1]);
  readonly branch7x7x3_4 = half(192, 192);

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const seven = run(x, this.branch7x7x3_1, this.branch7x7x3_2, this.branch7x7x3_3, this.branch7x7x3_4);
      return concat([run(x, this.branch3x3_1, this.branch3x3_2), seven, shrink(x)], -1);
    });
  }
}

class InceptionE extends Layer {
  readonly branch1x1: BasicConv2d;
  readonly branch3x3_1: BasicConv2d;
  readonly branch3x3_2a = same(384, 384, [1, 3]);
  readonly branch3x3_2b = same(384, 384, [3, 1]);
  readonly branch3x3dbl_1: BasicConv2d;
  readonly branch3x3dbl_2 = same(448, 384, 3);
  readonly branch3x3dbl_3a = same(384, 384, [1, 3]);
  readonly branch3x3dbl_3b = same(384, 384, [3, 1]);
  readonly branch_pool: BasicConv2d;
  readonly #pool: (x: Tensor) => Tensor;

  constructor(inputs: number, pool: (x: Tensor) => Tensor) {
    super();
    this.branch1x1 = same(inputs, 320, 1);
    this.branch3x3_1 = same(inputs, 384, 1);
    this.branch3x3dbl_1 = same(inputs, 448, 1);
    this.branch_pool = same(inputs, 192, 1);
    this.#pool = pool;
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const single = run(x, this.branch3x3_1);
      const double = run(x, this.branch3x3dbl_1, this.branch3x3dbl_2);
      return concat(
        [
          run(x, this.branch1x1),
          run(single, this.branch3x3_2a),
          run(single, this.branch3x3_2b),
          run(double, this.branch3x3dbl_3a),
          run(double, this.branch3x3dbl_3b),
          run(this.#pool(x), this.branch_pool),
        ],
        -1,
      );
    });
  }
}

/** The features at four depths. */
export interface InceptionFeatures {
  /** After the first and the second pooling, [N, 73, 73, 64] and [N, 35, 35, 192]. */
  readonly block0: Tensor;
  readonly block1: Tensor;
  /** Before the last three mixed blocks, [N, 17, 17, 768]. */
  readonly block2: Tensor;
  /** The mean over the image of the last ones, [N, 2048]: what FID takes. */
  readonly pool: Tensor;
}

export class InceptionV3 extends Module {
  static readonly size = 299;
  readonly Conv2d_1a_3x3 = half(3, 32);
  readonly Conv2d_2a_3x3 = new BasicConv2d(32, 32, 3);
  readonly Conv2d_2b_3x3 = same(32, 64, 3);
  readonly Conv2d_3b_1x1 = same(64, 80, 1);
  readonly Conv2d_4a_3x3 = new BasicConv2d(80, 192, 3);
  readonly Mixed_5b = new InceptionA(192, 32);
  readonly Mixed_5c = new InceptionA(256, 64);
  readonly Mixed_5d = new InceptionA(288, 64);
  readonly Mixed_6a = new InceptionB(288);
  readonly Mixed_6b = new InceptionC(128);
  readonly Mixed_6c = new InceptionC(160);
  readonly Mixed_6d = new InceptionC(160);
  readonly Mixed_6e = new InceptionC(192);
  readonly Mixed_7a = new InceptionD();
  readonly Mixed_7b = new InceptionE(1280, surroundings);
  // The last pool takes the largest: an error of the original that all published distances share.
  readonly Mixed_7c = new InceptionE(2048, largest);

  /** @param x [N, 299, 299, 3] in [-1, 1] */
  forward(x: Tensor): InceptionFeatures {
    return this.trace(() => {
      const block0 = shrink(run(x, this.Conv2d_1a_3x3, this.Conv2d_2a_3x3, this.Conv2d_2b_3x3));
      const block1 = shrink(run(block0, this.Conv2d_3b_1x1, this.Conv2d_4a_3x3));
      const mixed5 = run(block1, this.Mixed_5b, this.Mixed_5c, this.Mixed_5d);
      const block2 = run(mixed5, this.Mixed_6a, this.Mixed_6b, this.Mixed_6c, this.Mixed_6d, this.Mixed_6e);
      return { block0, block1, block2, pool: globalAvgPool(run(block2, this.Mixed_7a, this.Mixed_7b, this.Mixed_7c)) };
    });
  }
}
