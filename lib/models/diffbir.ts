import { affine } from '../graph/ops/elementwise.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { ForwardOptions } from './blocks.ts';
import { ControlNet, type ControlNetConfig } from './controlnet.ts';
import { irControlNet, type LatentConfig, LatentDiffusion, sd21, stage1SwinIR } from './latent.ts';
import type { SwinIRConfig } from './swinir.ts';

export interface DiffBIRConfig extends LatentConfig {
  readonly controlnet: ControlNetConfig;
  /** The first stage, which removes damage without adding detail: a network of its own. */
  readonly stage1: SwinIRConfig;
}

/** DiffBIR at full size: version 1, 2 and 2.1 are one network with other weights. */
export const diffbir = { ...sd21, controlnet: irControlNet, stage1: stage1SwinIR } as const satisfies DiffBIRConfig;

/** What a prediction is conditioned on. */
export interface Condition {
  /** Text features [N, L, context_dim]. */
  readonly context: Tensor;
  /** Latent of the first stage's image, [N, h, w, hint_channels]. */
  readonly hint: Tensor;
}

export interface PredictOptions extends ForwardOptions {
  /** How strongly the condition's latent steers: 1 by default. */
  readonly strength?: number;
}

/** DiffBIR's second stage (Lin et al. 2024): Stable Diffusion steered by IRControlNet. */
export class ControlLDM extends LatentDiffusion {
  readonly controlnet: ControlNet;

  constructor(config: LatentConfig & { readonly controlnet: ControlNetConfig }) {
    super(config);
    this.controlnet = new ControlNet(config.controlnet);
  }

  /**
   * The noise, or v, in latents at a timestep.
   *
   * @param x latents [N, h, w, channels]; h and w divide by 2 once a level of the UNet but the last
   * @param timesteps [N], i32 or floating
   * @returns of x's shape
   */
  predict(
    x: Tensor,
    timesteps: Tensor,
    { context, hint }: Condition,
    { strength = 1, ...options }: PredictOptions = {},
  ): Tensor {
    const features = this.controlnet.forward(x, hint, timesteps, context, options);
    const control = strength === 1 ? features : features.map((feature) => affine(feature, strength));
    return this.unet.forward(x, timesteps, context, { control, ...options });
  }
}
