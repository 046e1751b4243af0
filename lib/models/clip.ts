import { ReflError } from '../errors.ts';
import type { DType } from '../graph/dtype.ts';
import { gelu, quickGelu } from '../graph/ops/activation.ts';
import { attention } from '../graph/ops/attention.ts';
import { add, cast } from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import { broadcastTo, concat, reshape, slice, split } from '../graph/ops/layout.ts';
import { linear, matmul } from '../graph/ops/matmul.ts';
import { argmax } from '../graph/ops/reduce.ts';
import { constant, recompute, type Tensor } from '../graph/tensor.ts';
import { Conv2d, Embedding, LayerNorm, Linear } from '../nn/layers.ts';
import { type Init, Module, Parameter } from '../nn/module.ts';
import type { ForwardOptions } from './blocks.ts';

/** In the words of open_clip's model configurations; other keys are ignored, options that give another network refused. */
export interface CLIPConfig {
  /** Width of the space that both towers project into. */
  embed_dim: number;
  vision_cfg: {
    image_size: number | readonly [height: number, width: number];
    patch_size: number;
    width: number;
    layers: number;
    /** Width of an attention head. */
    head_width: number;
    /** Hidden width of the MLPs, in units of `width`; 4 when left out. */
    mlp_ratio?: number;
  };
  text_cfg: {
    /** Tokens of a text, padding included. */
    context_length: number;
    vocab_size: number;
    width: number;
    heads: number;
    layers: number;
    mlp_ratio?: number;
  };
  /** x * sigmoid(1.702 x) instead of GELU, as OpenAI's own weights want it. */
  quick_gelu?: boolean;
}

/** ViT-H/14 of LAION-2B: the text encoder of Stable Diffusion 2.1, HPS v2 and DiffusionReward's FaceRewardModel. */
export const vitH14: CLIPConfig = {
  embed_dim: 1024,
  vision_cfg: { image_size: 224, patch_size: 14, width: 1280, layers: 32, head_width: 80 },
  text_cfg: { context_length: 77, vocab_size: 49408, width: 1024, heads: 16, layers: 24 },
};

/** Options of open_clip that these classes do not build, and the values that leave them out. */
const unused: Readonly<Record<string, unknown>> = {
  ls_init_value: null,
  patch_dropout: 0,
  global_average_pool: false,
  attentional_pool: false,
  hf_model_name: null,
  timm_model_name: null,
};

function refuseOthers(part: string, config: object): void {
  for (const [key, value] of Object.entries(config)) {
    if (key in unused && value !== unused[key] && value !== null) {
      throw new ReflError('ERR_OPTION', `${part}.${key} must be ${unused[key]} in a CLIP of this kind, got ${value}`);
    }
  }
}

const normal = (std: number): Init => ({ kind: 'normal', std });
const uniform = (bound: number): Init => ({ kind: 'uniform', bound });

/** Deviations of the initial matrices of a block; PyTorch's defaults when left out. */
interface BlockInit {
  attn?: number;
  proj?: number;
  fc?: number;
}

/** Self attention under the names of PyTorch's MultiheadAttention: q, k and v in one matrix. */
class MultiheadAttention extends Module {
  readonly in_proj_weight: Parameter;
  readonly in_proj_bias: Parameter;
  readonly out_proj: Linear;
  readonly #heads: number;

  constructor(width: number, heads: number, { attn, proj }: BlockInit) {
    super();
    this.#heads = heads;
    // Xavier's uniform over all three matrices, as PyTorch has it.
    this.in_proj_weight = new Parameter([3 * width, width], attn ? normal(attn) : uniform(Math.sqrt(6 / (4 * width))));
    this.in_proj_bias = new Parameter([3 * width], 'zeros');
    this.out_proj = new Linear(width, width, { init: proj ? normal(proj) : uniform(1 / Math.sqrt(width)) });
  }

  forward(x: Tensor, causal: boolean): Tensor {
    return this.trace(() => {
      const [q, k, v] = split(linear(x, this.in_proj_weight.beside(x), this.in_proj_bias.beside(x)), 3, -1);
      return this.out_proj.forward(attention(q, k, v, { heads: this.#heads, causal }));
    });
  }
}

/** What all blocks of a tower have in common. */
interface BlockConfig {
  width: number;
  layers: number;
  heads: number;
  mlp_ratio?: number;
  quick_gelu?: boolean;
}

/** Pre-norm self attention and MLP, each added to its input: [N, L, C]. */
class ResidualAttentionBlock extends Module {
  readonly ln_1: LayerNorm;
  readonly attn: MultiheadAttention;
  readonly ln_2: LayerNorm;
  readonly mlp: { c_fc: Linear; c_proj: Linear };
  readonly #activation: (x: Tensor) => Tensor;

  constructor({ width, heads, mlp_ratio = 4, quick_gelu = false }: BlockConfig, init: BlockInit) {
    super();
    const hidden = Math.trunc(width * mlp_ratio);
    this.ln_1 = new LayerNorm(width);
    this.attn = new MultiheadAttention(width, heads, init);
    this.ln_2 = new LayerNorm(width);
    this.mlp = {
      c_fc: new Linear(width, hidden, init.fc ? { init: normal(init.fc) } : {}),
      c_proj: new Linear(hidden, width, init.proj ? { init: normal(init.proj) } : {}),
    };
    this.#activation = quick_gelu ? quickGelu : gelu;
  }

  forward(x: Tensor, causal: boolean): Tensor {
    return this.trace(() => {
      const mixed = add(x, this.attn.forward(this.ln_1.forward(x), causal));
      const { c_fc, c_proj } = this.mlp;
      return add(mixed, c_proj.forward(this.#activation(c_fc.forward(this.ln_2.forward(mixed)))));
    });
  }
}

/** The blocks of a tower, in order. */
class Transformer extends Module {
  readonly resblocks: ResidualAttentionBlock[];
  readonly #causal: boolean;

  constructor(config: BlockConfig, causal: boolean, init: BlockInit = {}) {
    super();
    this.resblocks = Array.from({ length: config.layers }, () => new ResidualAttentionBlock(config, init));
    this.#causal = causal;
  }

  /** Runs all blocks but the last `skip`. */
  forward(x: Tensor, options: ForwardOptions, skip = 0): Tensor {
    return this.trace(() =>
      this.resblocks.slice(0, this.resblocks.length - skip).reduce((h, block) => {
        const run = (): Tensor => block.forward(h, this.#causal);
        return options.recompute ? recompute(run) : run();
      }, x),
    );
  }
}

/** The image tower: patches and a class token through a transformer. */
export class VisionTransformer extends Module {
  readonly class_embedding: Parameter;
  readonly positional_embedding: Parameter;
  readonly proj: Parameter;
  readonly conv1: Conv2d;
  readonly ln_pre: LayerNorm;
  readonly transformer: Transformer;
  readonly ln_post: LayerNorm;
  /** Pixels of the images it takes. */
  readonly imageSize: readonly [height: number, width: number];

  constructor({ vision_cfg, embed_dim, quick_gelu }: Pick<CLIPConfig, 'vision_cfg' | 'embed_dim' | 'quick_gelu'>) {
    super();
    refuseOthers('vision_cfg', vision_cfg);
    const { image_size, patch_size, width, layers, head_width, mlp_ratio } = vision_cfg;
    const [height, across] = typeof image_size === 'number' ? [image_size, image_size] : image_size;
    const patches = Math.floor(height / patch_size) * Math.floor(across / patch_size);
    const scale = normal(width ** -0.5);
    this.imageSize = [height, across];
    this.class_embedding = new Parameter([width], scale);
    this.positional_embedding = new Parameter([1 + patches, width], scale);
    this.proj = new Parameter([width, embed_dim], scale);
    this.conv1 = new Conv2d(3, width, patch_size, { stride: patch_size, bias: false });
    this.ln_pre = new LayerNorm(width);
    this.transformer = new Transformer({ width, layers, heads: width / head_width, mlp_ratio, quick_gelu }, false);
    this.ln_post = new LayerNorm(width);
  }

  /**
   * @param images [N, H, W, 3] of the configuration's size, normalised (lib/reward/preprocess.ts); else ERR_SHAPE
   * @returns features [N, embed_dim], not normalised
   */
  forward(images: Tensor, options: ForwardOptions = {}): Tensor {
    const [n, height, across] = images.shape;
    const [h, w] = this.imageSize;
    if (height !== h || across !== w) {
      throw new ReflError('ERR_SHAPE', `this CLIP takes images of ${h}x${w} pixels, got ${height}x${across}`);
    }
    return this.trace(() => {
      const width = this.class_embedding.value.size;
      const start = broadcastTo(reshape(this.class_embedding.beside(images), [1, 1, width]), [n, 1, width]);
      const tokens = concat([start, reshape(this.conv1.forward(images), [n, -1, width])], 1);
      const x = this.ln_pre.forward(add(tokens, this.positional_embedding.beside(images)));
      const y = this.transformer.forward(x, options);
      const first = reshape(slice(y, [0, 0, 0], [n, 1, width]), [n, width]);
      return matmul(this.ln_post.forward(first), this.proj.beside(images));
    });
  }
}

/** How a text tower is traced. */
export interface TextOptions extends ForwardOptions {
  dtype?: DType;
}

/** The text tower; keys are those of official checkpoints, in Stable Diffusion's below `cond_stage_model.model.`. */
export class TextTransformer extends Module {
  readonly positional_embedding: Parameter;
  readonly text_projection: Parameter;
  /** Logarithm of the factor of the cosines in a softmax. */
  readonly logit_scale: Parameter;
  readonly transformer: Transformer;
  readonly token_embedding: Embedding;
  readonly ln_final: LayerNorm;

  constructor({ text_cfg, embed_dim, quick_gelu }: Pick<CLIPConfig, 'text_cfg' | 'embed_dim' | 'quick_gelu'>) {
    super();
    refuseOthers('text_cfg', text_cfg);
    const { context_length, vocab_size, width, layers } = text_cfg;
    const attn = width ** -0.5;
    const init = { attn, proj: attn * (2 * layers) ** -0.5, fc: (2 * width) ** -0.5 };
    this.positional_embedding = new Parameter([context_length, width], normal(0.01));
    this.text_projection = new Parameter([width, embed_dim], normal(attn));
    this.logit_scale = new Parameter([], { kind: 'constant', value: Math.log(1 / 0.07) });
    this.transformer = new Transformer({ ...text_cfg, quick_gelu }, true, init);
    this.token_embedding = new Embedding(vocab_size, width, 0.02);
    this.ln_final = new LayerNorm(width);
  }

  /**
   * One feature a token, after the final norm: what Stable Diffusion is conditioned on, with `skip` 1 in version 2.1.
   *
   * @param ids i32 [N, context_length]
   * @param options.skip how many of the last blocks are left out
   * @param options.dtype what the blocks compute in: that of the table by default
   * @returns [N, context_length, width]
   */
  tokens(ids: Tensor, { skip = 0, dtype, ...options }: TextOptions & { skip?: number } = {}): Tensor {
    return this.trace(() => {
      const x = add(this.token_embedding.forward(ids), this.positional_embedding.value);
      return this.ln_final.forward(this.transformer.forward(cast(x, dtype ?? x.dtype), options, skip));
    });
  }

  /**
   * One feature a text: that of its end token, which has the largest number, projected.
   *
   * @param ids i32 [N, context_length]
   * @returns [N, embed_dim], not normalised
   */
  pooled(ids: Tensor, options: TextOptions = {}): Tensor {
    const tokens = this.tokens(ids, options);
    return this.trace(() => {
      const [n, length, width] = tokens.shape;
      const offsets = constant(
        Float32Array.from({ length: n }, (_, i) => i * length),
        [n],
        'f32',
      );
      const last = cast(argmax(cast(ids, 'f32'), 1), 'f32');
      const ends = embedding(reshape(tokens, [n * length, width]), cast(add(last, offsets), 'i32'));
      return matmul(ends, this.text_projection.beside(ends));
    });
  }
}

/** Both towers under open_clip's names: the text tower's at the top, the image tower's below `visual.`. */
export class CLIP extends TextTransformer {
  readonly visual: VisionTransformer;

  constructor(config: CLIPConfig) {
    super(config);
    this.visual = new VisionTransformer(config);
  }
}
