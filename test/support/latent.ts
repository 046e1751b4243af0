import type { LatentConfig } from '../../lib/models/latent.ts';

/** A latent diffusion model of a few thousand weights: 2 channels, half as wide as images. */
export const smallLatent: LatentConfig = {
  unet: {
    in_channels: 2,
    out_channels: 2,
    model_channels: 8,
    channel_mult: [1, 2],
    num_res_blocks: 1,
    attention_resolutions: [2],
    num_heads: 2,
    context_dim: 6,
    num_groups: 4,
  },
  vae: {
    embed_dim: 2,
    ddconfig: { in_channels: 3, out_ch: 3, ch: 8, ch_mult: [1, 1], num_res_blocks: 1, z_channels: 2, num_groups: 4 },
  },
  text: { embed_dim: 3, text_cfg: { context_length: 5, vocab_size: 11, width: 6, heads: 2, layers: 2 } },
};
