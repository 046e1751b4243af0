import { full } from '../graph/ops/elementwise.ts';
import { concat } from '../graph/ops/layout.ts';
import { sameShape, type Tensor } from '../graph/tensor.ts';
import { Conv2d } from '../nn/layers.ts';
import { type Layer, Module, type Parameter } from '../nn/module.ts';
import { buildEncoder, type EncoderConfig, type ForwardOptions, runStage, type Stage, TimeEmbed } from './blocks.ts';
import type { UNet } from './unet.ts';

export interface ControlNetConfig extends EncoderConfig {
  /** Channels of the condition image, which is stacked behind the latent's. */
  hint_channels: number;
}

/** DiffBIR's IRControlNet: a copy of the UNet's contracting half whose every output passes a 1x1 convolution that starts at zero. */
export class ControlNet extends Module {
  readonly time_embed: TimeEmbed;
  readonly input_blocks: Stage[];
  readonly zero_convs: [Layer][];
  readonly middle_block: Stage;
  readonly middle_block_out: [Layer];

  constructor(config: ControlNetConfig) {
    super();
    this.time_embed = new TimeEmbed(config.model_channels);
    const { input_blocks, middle_block, channels } = buildEncoder(config, config.in_channels + config.hint_channels);
    const zeroConv = (ch: number): [Layer] => [new Conv2d(ch, ch, 1, { init: 'zeros' })];
    this.input_blocks = input_blocks;
    this.zero_convs = channels.map(zeroConv);
    this.middle_block = middle_block;
    this.middle_block_out = zeroConv(channels.at(-1)!);
  }

  /**
   * Features that steer a UNet of the same configuration.
   *
   * @param x noisy latents [N, H, W, in_channels]; `hint` condition latents [N, H, W, hint_channels]
   * @param timesteps [N], i32 or floating
   * @param context text tokens [N, M, context_dim]
   * @returns one tensor per input block, then the middle's, unscaled: what {@link UNet.forward} takes as `control`
   */
  forward(x: Tensor, hint: Tensor, timesteps: Tensor, context: Tensor, options: ForwardOptions = {}): Tensor[] {
    return this.trace(() => {
      const emb = this.time_embed.forward(timesteps, x.dtype);
      let h = concat([x, hint], -1);
      const features = this.input_blocks.map((stage, i) => {
        h = runStage(stage, h, emb, context, options);
        return this.zero_convs[i][0].forward(h);
      });
      h = runStage(this.middle_block, h, emb, context, options);
      return [...features, this.middle_block_out[0].forward(h)];
    });
  }
}

/**
 * What a ControlNet's parameters are when its training begins, as values of the UNet that it will steer: copies of the
 * contracting half and the middle, whose first convolution sees nothing of the condition yet. Those of the 1x1 convolutions
 * behind it, which start at zero, are not among them.
 */
export function copiedFrom(unet: UNet, controlnet: ControlNet): Map<Parameter, Tensor> {
  const copies = new Map<Parameter, Tensor>();
  const trained = unet.namedParameters();
  for (const [key, parameter] of controlnet.namedParameters()) {
    const own = parameter.value;
    const { value } = trained.get(key) ?? {};
    if (!value) continue;
    if (sameShape(value.shape, own.shape)) copies.set(parameter, value);
    else {
      const [outputs, inputs, ...kernel] = own.shape;
      const unseen = full([outputs, inputs - value.shape[1], ...kernel], 0, value.dtype);
      copies.set(parameter, concat([value, unseen], 1));
    }
  }
  return copies;
}
