import { ReflError } from '../errors.ts';
import { type DType, statisticsOf } from '../graph/dtype.ts';
import { silu } from '../graph/ops/activation.ts';
import { timestepEmbedding } from '../graph/ops/compose.ts';
import { add, cast } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import { resize } from '../graph/ops/resample.ts';
import { recompute, type Tensor } from '../graph/tensor.ts';
import { TransformerBlock } from '../nn/attention.ts';
import { Conv2d, GroupNorm, Linear } from '../nn/layers.ts';
import { Layer, Module } from '../nn/module.ts';

/** What the UNet and ControlNet share, in the words of the official configurations; other keys are ignored. */
export interface EncoderConfig {
  in_channels: number;
  model_channels: number;
  /** Width of each level, in units of model_channels. */
  channel_mult: readonly number[];
  /** Residual blocks a level: one number for all, or one each. */
  num_res_blocks: number | readonly number[];
  /** Downsampling factors of the levels that have transformers; the middle always has one. */
  attention_resolutions: readonly number[];
  /** Width of an attention head; or `num_heads` of equal width, where it is left out or -1. */
  num_head_channels?: number;
  num_heads?: number;
  /** Whether heads share all channels evenly where num_head_channels does not divide them: true by default, as officially. */
  legacy?: boolean;
  context_dim: number | readonly number[];
  transformer_depth?: number;
  /** Whether transformers are entered and left by linear layers instead of 1x1 convolutions. */
  use_linear_in_transformer?: boolean;
  /** Groups of every group norm; 32 when left out. */
  num_groups?: number;
}

export interface ForwardOptions {
  /** Trace each block as a recompute segment: less memory for a second forward during the backward pass. */
  recompute?: boolean;
}

/** The pieces of one place in the network, run in order. */
export type Stage = (Layer | ResBlock | SpatialTransformer)[];

/** Runs the pieces of a stage: emb [N, E] goes to residual blocks, context [N, M, D] to transformers. */
export function runStage(stage: Stage, x: Tensor, emb: Tensor, context: Tensor, options: ForwardOptions): Tensor {
  const run = (): Tensor =>
    stage.reduce((h, block) => {
      if (block instanceof ResBlock) return block.forward(h, emb);
      return block instanceof SpatialTransformer ? block.forward(h, context) : block.forward(h);
    }, x);
  return options.recompute ? recompute(run) : run();
}

/** Sinusoidal timestep features through two linear layers, with the SiLU that every residual block begins with: [N, 4C]. */
export class TimeEmbed extends Module {
  readonly 0: Linear;
  readonly 2: Linear;
  readonly #channels: number;

  constructor(channels: number) {
    super();
    this.#channels = channels;
    this[0] = new Linear(channels, 4 * channels);
    this[2] = new Linear(4 * channels, 4 * channels);
  }

  /** @param timesteps [N], whole (i32) or floating; @returns [N, 4 * channels] of `dtype` */
  forward(timesteps: Tensor, dtype: DType): Tensor {
    return this.trace(() => {
      // The angles in float32 at least: 16 bits do not tell step 998 from 999.
      const features = timestepEmbedding(cast(timesteps, statisticsOf(dtype)), this.#channels);
      return silu(this[2].forward(silu(this[0].forward(cast(features, dtype)))));
    });
  }
}

/** Two normalised 3x3 convolutions with the timestep added between them, around a shortcut. */
export class ResBlock extends Module {
  readonly in_layers: { 0: GroupNorm; 2: Layer };
  readonly emb_layers: { 1: Linear };
  readonly out_layers: { 0: GroupNorm; 3: Layer };
  readonly skip_connection?: Layer;

  constructor(inputs: number, outputs: number, embChannels: number, groups: number) {
    super();
    this.in_layers = { 0: new GroupNorm(groups, inputs, 1e-5), 2: new Conv2d(inputs, outputs, 3, { padding: 1 }) };
    this.emb_layers = { 1: new Linear(embChannels, outputs) };
    const last = new Conv2d(outputs, outputs, 3, { padding: 1, init: 'zeros' });
    this.out_layers = { 0: new GroupNorm(groups, outputs, 1e-5), 3: last };
    if (inputs !== outputs) this.skip_connection = new Conv2d(inputs, outputs, 1);
  }

  forward(x: Tensor, emb: Tensor): Tensor {
    return this.trace(() => {
      // Before the convolution, which then finishes by adding it.
      const shift = this.emb_layers[1].forward(emb);
      const ofImages = reshape(shift, [shift.shape[0], 1, 1, shift.shape[1]]);
      const h = add(this.in_layers[2].forward(this.in_layers[0].forward(x, true)), ofImages);
      const residual = this.out_layers[3].forward(this.out_layers[0].forward(h, true));
      return add(this.skip_connection?.forward(x) ?? x, residual);
    });
  }
}

/** Transformer blocks over an image's positions, added to the image. */
export class SpatialTransformer extends Module {
  readonly norm: GroupNorm;
  readonly proj_in: Layer;
  readonly transformer_blocks: TransformerBlock[];
  readonly proj_out: Layer;

  constructor(channels: number, config: EncoderConfig) {
    super();
    const { context_dim, transformer_depth = 1, use_linear_in_transformer, num_groups = 32 } = config;
    const width = Math.max(0, config.num_head_channels ?? 0);
    const heads = width ? Math.floor(channels / width) : (config.num_heads ?? 0);
    const headDim = config.legacy === false && width ? width : Math.floor(channels / heads);
    if (!(heads > 0 && headDim > 0)) {
      throw new ReflError('ERR_OPTION', `${channels} channels give ${heads} heads: set num_head_channels or num_heads`);
    }
    const inner = heads * headDim;
    const contexts = typeof context_dim === 'number' ? [context_dim] : context_dim;
    this.norm = new GroupNorm(num_groups, channels, 1e-6);
    this.proj_in = use_linear_in_transformer ? new Linear(channels, inner) : new Conv2d(channels, inner, 1);
    this.transformer_blocks = Array.from(
      { length: transformer_depth },
      (_, i) => new TransformerBlock(inner, heads, headDim, contexts[i] ?? contexts.at(-1)!),
    );
    this.proj_out = use_linear_in_transformer
      ? new Linear(inner, channels, { init: 'zeros' })
      : new Conv2d(inner, channels, 1, { init: 'zeros' });
  }

  forward(x: Tensor, context: Tensor): Tensor {
    return this.trace(() => {
      const [n, h, w] = x.shape;
      const inside = this.proj_in.forward(this.norm.forward(x));
      const tokens = reshape(inside, [n, h * w, inside.shape[3]]);
      const mixed = this.transformer_blocks.reduce((t, block) => block.forward(t, context), tokens);
      return add(x, this.proj_out.forward(reshape(mixed, inside.shape)));
    });
  }
}

/** Halves the size by a 3x3 convolution of stride 2. */
export class Downsample extends Layer {
  readonly op: Layer;

  constructor(channels: number) {
    super();
    this.op = new Conv2d(channels, channels, 3, { stride: 2, padding: 1 });
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => this.op.forward(x));
  }
}

/** Doubles the size by repeating pixels, then a 3x3 convolution. */
export class Upsample extends Layer {
  readonly conv: Layer;

  constructor(channels: number) {
    super();
    this.conv = new Conv2d(channels, channels, 3, { padding: 1 });
  }

  forward(x: Tensor): Tensor {
    return this.trace(() => this.conv.forward(resize(x, [x.shape[1] * 2, x.shape[2] * 2], { mode: 'nearest' })));
  }
}

/** The contracting half and the middle, as the UNet and ControlNet both have them. */
export interface Encoder {
  input_blocks: Stage[];
  middle_block: Stage;
  /** Channels after each input block. */
  channels: number[];
}

/** Builds the contracting half for images of `inputs` channels. */
export function buildEncoder(config: EncoderConfig, inputs: number): Encoder {
  refuseUnsupported(config);
  const { model_channels, channel_mult, num_groups = 32 } = config;
  const emb = 4 * model_channels;
  let ch = model_channels;
  let factor = 1;
  const input_blocks: Stage[] = [[new Conv2d(inputs, ch, 3, { padding: 1 })]];
  const channels = [ch];
  channel_mult.forEach((mult, level) => {
    for (let i = 0; i < resBlocks(config, level); i++) {
      const stage: Stage = [new ResBlock(ch, mult * model_channels, emb, num_groups)];
      ch = mult * model_channels;
      if (config.attention_resolutions.includes(factor)) stage.push(new SpatialTransformer(ch, config));
      input_blocks.push(stage);
      channels.push(ch);
    }
    if (level < channel_mult.length - 1) {
      input_blocks.push([new Downsample(ch)]);
      channels.push(ch);
      factor *= 2;
    }
  });
  const middle_block: Stage = [
    new ResBlock(ch, ch, emb, num_groups),
    new SpatialTransformer(ch, config),
    new ResBlock(ch, ch, emb, num_groups),
  ];
  return { input_blocks, middle_block, channels };
}

/** Residual blocks of a level. */
export const resBlocks = ({ num_res_blocks }: EncoderConfig, level: number): number =>
  typeof num_res_blocks === 'number' ? num_res_blocks : num_res_blocks[level];

/** Switches of the official classes that would give another network; each with the one value built here. */
const fixed: Readonly<Record<string, unknown>> = {
  dims: 2,
  conv_resample: true,
  use_scale_shift_norm: false,
  resblock_updown: false,
  use_spatial_transformer: true,
  disable_middle_self_attn: false,
  num_classes: null,
  n_embed: null,
  disable_self_attentions: null,
  num_attention_blocks: null,
};

function refuseUnsupported(config: object): void {
  for (const [key, value] of Object.entries(config)) {
    if (key in fixed && value !== fixed[key]) {
      throw new ReflError('ERR_OPTION', `the UNet option ${key} must be ${fixed[key]}, got ${JSON.stringify(value)}`);
    }
  }
}
