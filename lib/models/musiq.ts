import { gelu } from '../graph/ops/activation.ts';
import { attention } from '../graph/ops/attention.ts';
import { conv2d } from '../graph/ops/conv2d.ts';
import { add, affine, div, relu, sqrt, square, sub } from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import { broadcastTo, concat, reshape, slice } from '../graph/ops/layout.ts';
import { maxPool2d } from '../graph/ops/pool.ts';
import { mean, sum } from '../graph/ops/reduce.ts';
import type { Tensor } from '../graph/tensor.ts';
import { GroupNorm, LayerNorm, Linear } from '../nn/layers.ts';
import { Layer, Module, Parameter } from '../nn/module.ts';

/** A convolution with weights of mean 0 and deviation 1 for each output channel, as large as its input over the stride. */
class StdConv extends Layer {
  readonly weight: Parameter;
  readonly #stride: number;

  constructor(inputs: number, outputs: number, kernel: number, stride = 1) {
    super();
    this.weight = new Parameter([outputs, inputs, kernel, kernel], { kind: 'normal', std: 1 });
    this.#stride = stride;
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const weight = this.weight.beside(x);
      const [, inputs, kernel] = weight.shape;
      const centred = sub(weight, mean(weight, [1, 2, 3], true));
      const variance = affine(sum(square(centred), [1, 2, 3], true), 1 / (inputs * kernel * kernel - 1));
      const stride = this.#stride;
      // TensorFlow's "same" padding: the odd pixel below and to the right.
      const [vertical, horizontal] = [x.shape[1], x.shape[2]].map((size) =>
        Math.max(0, (Math.ceil(size / stride) - 1) * stride + kernel - size),
      );
      const [top, left] = [vertical >> 1, horizontal >> 1];
      return conv2d(x, div(centred, affine(sqrt(variance), 1, 1e-5)), undefined, {
        stride,
        padding: [top, left, vertical - top, horizontal - left],
      });
    });
  }
}

/** The one residual block of the patches' network. */
class Bottleneck extends Module {
  readonly conv1 = new StdConv(64, 64, 1);
  readonly gn1 = new GroupNorm(32, 64, 1e-4);
  readonly conv2 = new StdConv(64, 64, 3);
  readonly gn2 = new GroupNorm(32, 64, 1e-4);
  readonly conv3 = new StdConv(64, 256, 1);
  readonly gn3 = new GroupNorm(32, 256, 1e-4);
  readonly conv_proj = new StdConv(64, 256, 1);
  readonly gn_proj = new GroupNorm(32, 256, 1e-4);

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const short = this.gn_proj.forward(this.conv_proj.forward(x));
      const first = relu(this.gn1.forward(this.conv1.forward(x)));
      const second = relu(this.gn2.forward(this.conv2.forward(first)));
      return relu(add(this.gn3.forward(this.conv3.forward(second)), short));
    });
  }
}

const width = 384;
const heads = 6;
const blocks = 14;
const hidden = 1152;

/** Pre-norm self attention and MLP, each added to its input. */
class EncoderBlock extends Layer {
  readonly norm1 = new LayerNorm(width, 1e-6);
  readonly attention = {
    query: new Linear(width, width),
    key: new Linear(width, width),
    value: new Linear(width, width),
    out: new Linear(width, width),
  };
  readonly norm2 = new LayerNorm(width, 1e-6);
  readonly mlp = { fc1: new Linear(width, hidden), fc2: new Linear(hidden, width) };

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const { query, key, value, out } = this.attention;
      const y = this.norm1.forward(x);
      const mixed = add(x, out.forward(attention(query.forward(y), key.forward(y), value.forward(y), { heads })));
      return add(mixed, this.mlp.fc2.forward(gelu(this.mlp.fc1.forward(this.norm2.forward(mixed)))));
    });
  }
}

const table = (shape: number[]): Parameter => new Parameter(shape, { kind: 'normal', std: 0.02 });

/** Patches of a picture at several scales, as {@link MUSIQ} takes them. */
export interface MultiscalePatches {
  /** [N, L, 32, 32, 3] in [-1, 1]. */
  readonly patches: Tensor;
  /** Where each patch lies on a grid of 10 x 10 over its picture, counted along rows: i32 [L]. */
  readonly positions: Tensor;
  /** Which scale each patch belongs to: i32 [L]. */
  readonly scales: Tensor;
}

/**
 * The multi-scale image quality transformer (Ke et al. 2021) with one score, as trained on KonIQ-10k. Keys are those of
 * pyiqa's `musiq_koniq_ckpt`.
 */
export class MUSIQ extends Module {
  /** Pixels a side of a patch, and places a side of the grid of positions. */
  static readonly patch = 32;
  static readonly grid = 10;
  readonly conv_root = new StdConv(3, 64, 7, 2);
  readonly gn_root = new GroupNorm(32, 64, 1e-6);
  readonly block1 = new Bottleneck();
  readonly embedding = new Linear(8 * 8 * 256, width);
  readonly transformer_encoder = {
    cls: table([1, 1, width]),
    posembed_input: { position_emb: table([1, MUSIQ.grid ** 2, width]) },
    scaleembed_input: { scale_emb: table([3, width]) },
    transformer: Object.fromEntries(
      Array.from({ length: blocks }, (_, i) => [`encoderblock_${i}`, new EncoderBlock()]),
    ),
    encoder_norm: new LayerNorm(width, 1e-6),
  };
  readonly head = new Linear(width, 1);

  /** One feature a patch, before its place is added: [N, L, 32, 32, 3] to [N, L, 384]. */
  embed(patches: Tensor): Tensor {
    return this.trace(() => {
      const [n, length, ...patch] = patches.shape;
      const root = relu(this.gn_root.forward(this.conv_root.forward(reshape(patches, [n * length, ...patch]))));
      // Padded below and to the right; nothing there exceeds what a ReLU left.
      const pooled = maxPool2d(root, { kernel: [3, 3], stride: [2, 2], padding: [0, 0, 1, 1] });
      return this.embedding.forward(reshape(this.block1.forward(pooled), [n, length, -1]));
    });
  }

  /** The feature of the whole picture, [N, 384]. */
  feature({ patches, positions, scales }: MultiscalePatches): Tensor {
    const embedded = this.embed(patches);
    return this.trace(() => {
      const { cls, posembed_input, scaleembed_input, transformer, encoder_norm } = this.transformer_encoder;
      const [n] = embedded.shape;
      const place = embedding(reshape(posembed_input.position_emb.beside(embedded), [-1, width]), positions);
      const scale = embedding(scaleembed_input.scale_emb.beside(embedded), scales);
      const start = broadcastTo(cls.beside(embedded), [n, 1, width]);
      const tokens = concat([start, add(add(embedded, place), scale)], 1);
      const mixed = encoder_norm.forward(Object.values(transformer).reduce((x, block) => block.forward(x), tokens));
      return reshape(slice(mixed, [0, 0, 0], [n, 1, width]), [n, width]);
    });
  }

  /** @returns [N], about 0 to 100, larger for better pictures */
  forward(picture: MultiscalePatches): Tensor {
    const feature = this.feature(picture);
    return this.trace(() => reshape(this.head.forward(feature), [feature.shape[0]]));
  }
}
