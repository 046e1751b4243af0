import { attention } from '../graph/ops/attention.ts';
import { add, relu } from '../graph/ops/elementwise.ts';
import { concat, reshape } from '../graph/ops/layout.ts';
import { avgPool2d } from '../graph/ops/pool.ts';
import { mean } from '../graph/ops/reduce.ts';
import type { Tensor } from '../graph/tensor.ts';
import { BatchNorm, Conv2d, Linear } from '../nn/layers.ts';
import { Module } from '../nn/module.ts';
import { TextTransformer } from './clip.ts';

const conv3x3 = (inputs: number, outputs: number, stride = 1): Conv2d =>
  new Conv2d(inputs, outputs, 3, { stride, padding: 1, bias: false });
const conv1x1 = (inputs: number, outputs: number): Conv2d => new Conv2d(inputs, outputs, 1, { bias: false });

const halved = (x: Tensor): Tensor => avgPool2d(x, { kernel: [2, 2] });

/** A bottleneck that shrinks by averaging, in its body and in its shortcut, where others step over pixels. */
class Bottleneck extends Module {
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm;
  readonly conv3: Conv2d;
  readonly bn3: BatchNorm;
  readonly downsample?: { 0: Conv2d; 1: BatchNorm };
  readonly #shrinks: boolean;

  constructor(inputs: number, width: number, shrinks: boolean) {
    super();
    this.conv1 = conv1x1(inputs, width);
    this.bn1 = new BatchNorm(width);
    this.conv2 = conv3x3(width, width);
    this.bn2 = new BatchNorm(width);
    this.conv3 = conv1x1(width, 4 * width);
    this.bn3 = new BatchNorm(4 * width);
    this.#shrinks = shrinks;
    if (shrinks || inputs !== 4 * width) {
      this.downsample = { 0: conv1x1(inputs, 4 * width), 1: new BatchNorm(4 * width) };
    }
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const sized = (y: Tensor): Tensor => (this.#shrinks ? halved(y) : y);
      const narrow = relu(this.bn1.forward(this.conv1.forward(x)));
      const body = this.bn3.forward(this.conv3.forward(sized(relu(this.bn2.forward(this.conv2.forward(narrow))))));
      const short = this.downsample ? this.downsample[1].forward(this.downsample[0].forward(sized(x))) : x;
      return relu(add(body, short));
    });
  }
}

/**
 * One feature of a map of any size: the mean of its pixels attends to them and to itself. CLIP adds a position to each pixel
 * first, which ties the size down; CLIPIQA leaves that out, and so does this.
 */
class AttentionPool extends Module {
  readonly k_proj: Linear;
  readonly q_proj: Linear;
  readonly v_proj: Linear;
  readonly c_proj: Linear;
  readonly #heads: number;

  constructor(channels: number, heads: number, outputs: number) {
    super();
    this.k_proj = new Linear(channels, channels);
    this.q_proj = new Linear(channels, channels);
    this.v_proj = new Linear(channels, channels);
    this.c_proj = new Linear(channels, outputs);
    this.#heads = heads;
  }

  /** @param x [N, H, W, channels]; @returns [N, outputs] */
  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const [n, h, w, channels] = x.shape;
      const pixels = reshape(x, [n, h * w, channels]);
      const middle = mean(pixels, [1], true);
      const tokens = concat([middle, pixels], 1);
      const [q, k, v] = [this.q_proj.forward(middle), this.k_proj.forward(tokens), this.v_proj.forward(tokens)];
      return this.c_proj.forward(reshape(attention(q, k, v, { heads: this.#heads }), [n, channels]));
    });
  }
}

export interface ClipResNetConfig {
  embed_dim: number;
  /** Bottlenecks of each stage. */
  vision_layers: readonly number[];
  vision_width: number;
  context_length: number;
  vocab_size: number;
  transformer_width: number;
  transformer_heads: number;
  transformer_layers: number;
}

/** OpenAI's CLIP on ResNet-50. */
export const rn50: ClipResNetConfig = {
  embed_dim: 1024,
  vision_layers: [3, 4, 6, 3],
  vision_width: 64,
  context_length: 77,
  vocab_size: 49408,
  transformer_width: 512,
  transformer_heads: 8,
  transformer_layers: 12,
};

/** The image tower: three convolutions, four stages of bottlenecks, {@link AttentionPool}. */
export class ModifiedResNet extends Module {
  readonly conv1: Conv2d;
  readonly bn1: BatchNorm;
  readonly conv2: Conv2d;
  readonly bn2: BatchNorm;
  readonly conv3: Conv2d;
  readonly bn3: BatchNorm;
  readonly [stage: `layer${number}`]: Bottleneck[];
  readonly attnpool: AttentionPool;
  readonly #stages: Bottleneck[][];

  constructor({ vision_layers, vision_width: width, embed_dim }: ClipResNetConfig) {
    super();
    this.conv1 = conv3x3(3, width / 2, 2);
    this.bn1 = new BatchNorm(width / 2);
    this.conv2 = conv3x3(width / 2, width / 2);
    this.bn2 = new BatchNorm(width / 2);
    this.conv3 = conv3x3(width / 2, width);
    this.bn3 = new BatchNorm(width);
    let inputs = width;
    this.#stages = vision_layers.map((count, stage) =>
      Array.from({ length: count }, (_, i) => {
        const block = new Bottleneck(inputs, width << stage, stage > 0 && i === 0);
        inputs = 4 * (width << stage);
        return block;
      }),
    );
    Object.assign(this, Object.fromEntries(this.#stages.map((blocks, i) => [`layer${i + 1}`, blocks])));
    this.attnpool = new AttentionPool(inputs, width / 2, embed_dim);
  }

  /** The last stage's map, [N, H / 32, W / 32, 32 * vision_width], each halving rounded down but the first. */
  map(images: Tensor): Tensor {
    return this.trace(() => {
      let x = relu(this.bn1.forward(this.conv1.forward(images)));
      x = relu(this.bn2.forward(this.conv2.forward(x)));
      x = halved(relu(this.bn3.forward(this.conv3.forward(x))));
      for (const block of this.#stages.flat()) x = block.forward(x);
      return x;
    });
  }

  /**
   * @param images [N, H, W, 3] of any size from 32 pixels a side on, normalised (lib/reward/preprocess.ts)
   * @returns features [N, embed_dim], not normalised
   */
  forward(images: Tensor): Tensor {
    return this.attnpool.forward(this.map(images));
  }
}

/** Both towers under OpenAI's names, the text tower's at the top, the image tower's below `visual.`. */
export class ClipResNet extends TextTransformer {
  readonly visual: ModifiedResNet;

  constructor(config: ClipResNetConfig = rn50) {
    const { embed_dim, context_length, vocab_size } = config;
    const text_cfg = {
      context_length,
      vocab_size,
      width: config.transformer_width,
      heads: config.transformer_heads,
      layers: config.transformer_layers,
    };
    super({ text_cfg, embed_dim, quick_gelu: true });
    this.visual = new ModifiedResNet(config);
  }
}
