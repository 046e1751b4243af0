import { full } from '../graph/ops/elementwise.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { ForwardOptions } from './blocks.ts';
import { type LatentConfig, LatentDiffusion } from './latent.ts';
import { addUnetLora, addVaeLora } from './lora.ts';

/** Ranks of OSEDiff's adapters; its files hold them as `rank_unet` and `rank_vae`, 4 each. */
export interface OSEDiffRanks {
  readonly unet: number;
  readonly vae: number;
}

/**
 * OSEDiff (Wu et al. 2024): Stable Diffusion whose UNet and whose autoencoder's encoder were adapted, so that the latent of
 * a degraded image passes for the noisy sample at the last timestep, and one prediction restores it.
 */
export class OSEDiff extends LatentDiffusion {
  /** @param ranks of the adapters, beside the weights; left out, they are folded into the weights or there are none */
  constructor(config: LatentConfig, ranks?: OSEDiffRanks) {
    super(config);
    if (!ranks) return;
    addUnetLora(this.unet, { rank: ranks.unet });
    addVaeLora(this.vae, { rank: ranks.vae });
  }

  /**
   * The noise in latents of degraded images, which are taken for samples at timestep 999.
   *
   * @param z latents [N, h, w, channels]; h and w divide by 2 once a level of the UNet but the last
   * @param context text features [N, L, context_dim]
   * @returns of z's shape; the restored latent is lib/diffusion's x0 of z and this
   */
  predict(z: Tensor, context: Tensor, options: ForwardOptions = {}): Tensor {
    return this.unet.forward(z, full([z.shape[0]], OSEDiff.timestep), context, options);
  }

  static readonly timestep = 999;
}
