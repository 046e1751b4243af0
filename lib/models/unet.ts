import { ReflError } from '../errors.ts';
import { add } from '../graph/ops/elementwise.ts';
import { concat } from '../graph/ops/layout.ts';
import type { Tensor } from '../graph/tensor.ts';
import { Conv2d, GroupNorm } from '../nn/layers.ts';
import { type Layer, Module } from '../nn/module.ts';
import {
  buildEncoder,
  type EncoderConfig,
  type ForwardOptions,
  ResBlock,
  resBlocks,
  runStage,
  SpatialTransformer,
  type Stage,
  TimeEmbed,
  Upsample,
} from './blocks.ts';

export interface UNetConfig extends EncoderConfig {
  out_channels: number;
}

export interface UNetOptions extends ForwardOptions {
  /** ControlNet features, already scaled: one per input block, the last for the middle. */
  control?: readonly Tensor[];
}

/** The latent-diffusion UNet; keys are those of official checkpoints below `model.diffusion_model.`. */
export class UNet extends Module {
  readonly time_embed: TimeEmbed;
  readonly input_blocks: Stage[];
  readonly middle_block: Stage;
  readonly output_blocks: Stage[];
  readonly out: { 0: GroupNorm; 2: Layer };
  /** Sides of latents must be multiples of this. */
  readonly multiple: number;

  constructor(config: UNetConfig) {
    super();
    const { model_channels, channel_mult, num_groups = 32 } = config;
    this.multiple = 2 ** (channel_mult.length - 1);
    this.time_embed = new TimeEmbed(model_channels);
    const { input_blocks, middle_block, channels } = buildEncoder(config, config.in_channels);
    this.input_blocks = input_blocks;
    this.middle_block = middle_block;
    this.output_blocks = [];
    let ch = channels.at(-1)!;
    for (let level = channel_mult.length - 1; level >= 0; level--) {
      const blocks = resBlocks(config, level);
      for (let i = 0; i <= blocks; i++) {
        const width = model_channels * channel_mult[level];
        const stage: Stage = [new ResBlock(ch + channels.pop()!, width, 4 * model_channels, num_groups)];
        ch = width;
        if (config.attention_resolutions.includes(2 ** level)) stage.push(new SpatialTransformer(ch, config));
        if (level > 0 && i === blocks) stage.push(new Upsample(ch));
        this.output_blocks.push(stage);
      }
    }
    const last = new Conv2d(model_channels, config.out_channels, 3, { padding: 1, init: 'zeros' });
    this.out = { 0: new GroupNorm(num_groups, ch, 1e-5), 2: last };
  }

  /**
   * Predicts noise (or v) of latents at a timestep.
   *
   * @param x latents [N, H, W, in_channels]; H and W multiples of {@link multiple}, else ERR_SHAPE
   * @param timesteps [N], i32 or floating
   * @param context text tokens [N, M, context_dim]
   * @returns [N, H, W, out_channels]
   */
  forward(x: Tensor, timesteps: Tensor, context: Tensor, { control, ...options }: UNetOptions = {}): Tensor {
    const [, height, width] = x.shape;
    if (height % this.multiple || width % this.multiple) {
      throw new ReflError(
        'ERR_SHAPE',
        `a UNet of this depth needs sides that are multiples of ${this.multiple}, got ${height}x${width}`,
      );
    }
    return this.trace(() => {
      const emb = this.time_embed.forward(timesteps, x.dtype);
      const skips: Tensor[] = [];
      let h = x;
      for (const stage of this.input_blocks) {
        h = runStage(stage, h, emb, context, options);
        skips.push(h);
      }
      h = runStage(this.middle_block, h, emb, context, options);
      const extra = control && [...control];
      if (extra) h = add(h, extra.pop()!);
      for (const stage of this.output_blocks) {
        const skip = skips.pop()!;
        h = runStage(stage, concat([h, extra ? add(skip, extra.pop()!) : skip], -1), emb, context, options);
      }
      return this.out[2].forward(this.out[0].forward(h, true));
    });
  }
}
