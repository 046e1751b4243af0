import { add, minimum, mul, relu } from '../graph/ops/elementwise.ts';
import { reshape, transpose } from '../graph/ops/layout.ts';
import { maxPool2d } from '../graph/ops/pool.ts';
import type { Tensor } from '../graph/tensor.ts';
import { BatchNorm, Conv2d, Linear } from '../nn/layers.ts';
import { Layer, Module, Parameter } from '../nn/module.ts';

/** Negative values times one learned slope. */
class PReLU extends Layer {
  readonly weight = new Parameter([1], { kind: 'constant', value: 0.25 });

  forward(x: Tensor): Tensor {
    return this.trace(() => add(relu(x), mul(minimum(x, 0), this.weight.beside(x))));
  }
}

const conv3x3 = (inputs: number, outputs: number, stride = 1): Conv2d =>
  new Conv2d(inputs, outputs, 3, { stride, padding: 1, bias: false });

/** A residual block that begins with a norm; both its activations share one slope. */
class IRBlock extends Module {
  readonly bn0: BatchNorm;
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm;
  readonly prelu = new PReLU();
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm;
  readonly downsample?: { 0: Conv2d; 1: BatchNorm };

  constructor(inputs: number, outputs: number, stride: number) {
    super();
    this.bn0 = new BatchNorm(inputs);
    this.conv1 = conv3x3(inputs, inputs);
    this.bn1 = new BatchNorm(inputs);
    this.conv2 = conv3x3(inputs, outputs, stride);
    this.bn2 = new BatchNorm(outputs);
    if (stride !== 1 || inputs !== outputs) {
      this.downsample = { 0: new Conv2d(inputs, outputs, 1, { stride, bias: false }), 1: new BatchNorm(outputs) };
    }
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const inside = this.prelu.forward(this.bn1.forward(this.conv1.forward(this.bn0.forward(x))));
      const residual = this.bn2.forward(this.conv2.forward(inside));
      const short = this.downsample ? this.downsample[1].forward(this.downsample[0].forward(x)) : x;
      return this.prelu.forward(add(residual, short));
    });
  }
}

/** Widths of the four stages, each of which but the first halves the image. */
const widths = [64, 128, 256, 512];

/**
 * The face recognition network that papers on face restoration measure identity with: arcface-pytorch's `resnet_face18`
 * without squeeze-and-excitation, trained with ArcFace's loss (Deng et al. 2019). Keys are those of `resnet18_110.pth` without
 * their `module.`.
 */
export class ResNetFace extends Module {
  static readonly size = 128;
  readonly conv1 = conv3x3(1, 64);
  readonly bn1 = new BatchNorm(64);
  readonly prelu = new PReLU();
  readonly [stage: `layer${number}`]: IRBlock[];
  readonly bn4 = new BatchNorm(512);
  readonly fc5 = new Linear(512 * 8 * 8, 512);
  readonly bn5 = new BatchNorm(512);
  readonly #stages: IRBlock[][];

  constructor() {
    super();
    this.#stages = widths.map((width, i) => [
      new IRBlock(widths[Math.max(0, i - 1)], width, i ? 2 : 1),
      new IRBlock(width, width, 1),
    ]);
    Object.assign(this, Object.fromEntries(this.#stages.map((blocks, i) => [`layer${i + 1}`, blocks])));
  }

  /**
   * @param faces [N, 128, 128, 1] in [-1, 1], grey
   * @returns [N, 512], whose angles tell persons apart; not normalised
   */
  forward(faces: Tensor): Tensor {
    return this.trace(() => {
      let x = this.prelu.forward(this.bn1.forward(this.conv1.forward(faces)));
      x = maxPool2d(x, { kernel: [2, 2] });
      for (const block of this.#stages.flat()) x = block.forward(x);
      const planes = transpose(this.bn4.forward(x), [0, 3, 1, 2]);
      return this.bn5.forward(this.fc5.forward(reshape(planes, [x.shape[0], -1])));
    });
  }
}
