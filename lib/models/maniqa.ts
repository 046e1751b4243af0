import { gelu } from '../graph/ops/activation.ts';
import { attention } from '../graph/ops/attention.ts';
import { add, affine, div, mul, relu, sigmoid } from '../graph/ops/elementwise.ts';
import { broadcastTo, concat, reshape, slice, split, transpose } from '../graph/ops/layout.ts';
import { matmul } from '../graph/ops/matmul.ts';
import { sum } from '../graph/ops/reduce.ts';
import { softmax } from '../graph/ops/softmax.ts';
import type { Tensor } from '../graph/tensor.ts';
import { Conv2d, LayerNorm, Linear } from '../nn/layers.ts';
import { Layer, Module, Parameter } from '../nn/module.ts';
import { SwinBlock, windowsOf } from './swin.ts';

/** Pixels a side of a picture and of a patch, and patches a side. */
const size = 224;
const patch = 8;
const grid = size / patch;
/** Width, heads and the blocks whose features are taken, of the vision transformer ViT-B/8. */
const width = 768;
const vitHeads = 12;
const taken = [6, 7, 8, 9];

/** Pre-norm self attention and MLP, each added to its input, under the names of timm. */
class VitBlock extends Layer {
  readonly norm1 = new LayerNorm(width, 1e-6);
  readonly attn = { qkv: new Linear(width, 3 * width), proj: new Linear(width, width) };
  readonly norm2 = new LayerNorm(width, 1e-6);
  readonly mlp = { fc1: new Linear(width, 4 * width), fc2: new Linear(4 * width, width) };

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const [q, k, v] = split(this.attn.qkv.forward(this.norm1.forward(x)), 3, -1);
      const mixed = add(x, this.attn.proj.forward(attention(q, k, v, { heads: vitHeads })));
      return add(mixed, this.mlp.fc2.forward(gelu(this.mlp.fc1.forward(this.norm2.forward(mixed)))));
    });
  }
}

/** timm's `vit_base_patch8_224` up to the last block whose features are taken. */
class VisionTransformer extends Module {
  readonly cls_token = new Parameter([1, 1, width], { kind: 'normal', std: 1e-6 });
  readonly pos_embed = new Parameter([1, grid * grid + 1, width], { kind: 'normal', std: 0.02 });
  readonly patch_embed = { proj: new Conv2d(3, width, patch, { stride: patch }) };
  readonly blocks = Array.from({ length: taken[taken.length - 1] + 1 }, () => new VitBlock());

  /** @returns what each taken block makes of pictures [N, 224, 224, 3]: [N, 1 + 784, 768] */
  forward(x: Tensor): Tensor[] {
    return this.trace(() => {
      const n = x.shape[0];
      const patches = reshape(this.patch_embed.proj.forward(x), [n, grid * grid, width]);
      const start = broadcastTo(this.cls_token.beside(x), [n, 1, width]);
      let tokens = add(concat([start, patches], 1), this.pos_embed.beside(x));
      const outputs = this.blocks.map((block) => {
        tokens = block.forward(tokens);
        return tokens;
      });
      return taken.map((i) => outputs[i]);
    });
  }
}

/** Transposed attention: the channels, of one number a patch, attend to each other. [N, C, 784] */
class TABlock extends Layer {
  readonly c_q = new Linear(grid * grid, grid * grid);
  readonly c_k = new Linear(grid * grid, grid * grid);
  readonly c_v = new Linear(grid * grid, grid * grid);

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const [n, channels, places] = x.shape;
      const scores = matmul(affine(this.c_q.forward(x), places ** -0.5), this.c_k.forward(x), { transposeB: true });
      const mixed = matmul(softmax(scores), this.c_v.forward(x));
      // Read back in another order than it was written: the trained weights know it so.
      return add(reshape(transpose(mixed, [0, 2, 1]), [n, channels, places]), x);
    });
  }
}

const window = 4;
const windowHeads = 4;
const hidden = 768;

/** Two window blocks, plain and shifted, then a convolution. */
class SwinLayer extends Module {
  readonly blocks: SwinBlock[];
  readonly conv: Conv2d;

  constructor(channels: number) {
    super();
    const shared = { channels, hidden, heads: windowHeads, window, grid: [grid, grid] as const };
    this.blocks = [0, window / 2].map((shift) => new SwinBlock({ ...shared, shift }));
    this.conv = new Conv2d(channels, channels, 3, { padding: 1 });
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const windows = windowsOf([grid, grid], window, window / 2, x.dtype);
      return relu(this.conv.forward(this.blocks.reduce((h, block) => block.forward(h, windows), x)));
    });
  }
}

/** Two layers, each added to its input by a share. [N, 28, 28, C] */
class ScaledSwin extends Layer {
  readonly layers: SwinLayer[];
  readonly #scale: number;

  constructor(channels: number, scale: number) {
    super();
    this.layers = [new SwinLayer(channels), new SwinLayer(channels)];
    this.#scale = scale;
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => this.layers.reduce((h, layer) => add(affine(layer.forward(h), this.#scale), h), x));
  }
}

/** What MANIQA makes of pictures on the way, and its verdict on each patch. */
export interface ManiqaOutputs {
  /** The last taken block of the vision transformer, [N, 785, 768]. */
  readonly vit: Tensor;
  /** Before, between and after the window transformers: [N, 28, 28, 768] twice, [N, 28, 28, 384]. */
  readonly conv1: Tensor;
  readonly swin1: Tensor;
  readonly swin2: Tensor;
  /** A score and a weight for each patch, [N, 784]. */
  readonly scores: Tensor;
  readonly weights: Tensor;
}

/**
 * The multi-dimension attention network for image quality (Yang et al. 2022). Keys are those of its own `ckpt_koniq10k.pt` and of
 * pyiqa's files.
 */
export class MANIQA extends Module {
  static readonly size = size;
  readonly vit = new VisionTransformer();
  readonly tablock1 = [new TABlock(), new TABlock()];
  readonly conv1 = new Conv2d(taken.length * width, width, 1);
  readonly swintransformer1: ScaledSwin;
  readonly tablock2 = [new TABlock(), new TABlock()];
  readonly conv2 = new Conv2d(width, width / 2, 1);
  readonly swintransformer2: ScaledSwin;
  readonly fc_score = { 0: new Linear(width / 2, width / 2), 3: new Linear(width / 2, 1) };
  readonly fc_weight = { 0: new Linear(width / 2, width / 2), 3: new Linear(width / 2, 1) };

  /** @param options.scale the share that window transformers add: 0.8 for weights of KonIQ-10k, 0.13 for those of PIPAL */
  constructor({ scale = 0.8 }: { scale?: number } = {}) {
    super();
    this.swintransformer1 = new ScaledSwin(width, scale);
    this.swintransformer2 = new ScaledSwin(width / 2, scale);
  }

  /** @param pictures [N, 224, 224, 3] in [-1, 1] */
  outputs(pictures: Tensor): ManiqaOutputs {
    return this.trace(() => {
      const n = pictures.shape[0];
      const blocks = this.vit.forward(pictures);
      const places = blocks.map((block) => slice(block, [0, 1, 0], [n, grid * grid, width]));
      const conv1 = this.conv1.forward(transposed(this.tablock1, concat(places, 2)));
      const swin1 = this.swintransformer1.forward(conv1);
      const second = transposed(this.tablock2, reshape(swin1, [n, grid * grid, width]));
      const swin2 = this.swintransformer2.forward(this.conv2.forward(second));
      const verdict = (head: Record<0 | 3, Linear>): Tensor =>
        reshape(head[3].forward(relu(head[0].forward(swin2))), [n, grid * grid]);
      const [scores, weights] = [relu(verdict(this.fc_score)), sigmoid(verdict(this.fc_weight))];
      return { vit: blocks[blocks.length - 1], conv1, swin1, swin2, scores, weights };
    });
  }

  /**
   * One score for all pictures together, as pyiqa takes crops of one: the weighted mean over all their patches.
   *
   * @param crops [N, 224, 224, 3] in [-1, 1]
   * @returns [1], 0 and up, mostly under 1
   */
  forward(crops: Tensor): Tensor {
    const { scores, weights } = this.outputs(crops);
    return this.trace(() => reshape(div(sum(mul(scores, weights)), affine(sum(weights), 1, 1e-8)), [1]));
  }
}

/** Tokens [N, 784, C] through transposed attention, as a map [N, 28, 28, C]. */
function transposed(blocks: readonly TABlock[], tokens: Tensor): Tensor {
  const [n, places, channels] = tokens.shape;
  const mixed = blocks.reduce((x, block) => block.forward(x), transpose(tokens, [0, 2, 1]));
  return reshape(transpose(reshape(mixed, [n, channels, places]), [0, 2, 1]), [n, grid, grid, channels]);
}
