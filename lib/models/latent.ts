import { affine } from '../graph/ops/elementwise.ts';
import type { Tensor } from '../graph/tensor.ts';
import { Module } from '../nn/module.ts';
import type { ForwardOptions } from './blocks.ts';
import { type CLIPConfig, TextTransformer, vitH14 } from './clip.ts';
import type { ControlNetConfig } from './controlnet.ts';
import type { SwinIRConfig } from './swinir.ts';
import { UNet, type UNetConfig } from './unet.ts';
import { AutoencoderKL, decodingPieces, encodingPieces, type Piece, posterior, type VaeConfig } from './vae.ts';

export interface LatentConfig {
  readonly unet: UNetConfig;
  readonly vae: VaeConfig;
  readonly text: Pick<CLIPConfig, 'text_cfg' | 'embed_dim' | 'quick_gelu'>;
  /** What latents are multiplied by, so that their deviation is about 1; 0.18215 when left out. */
  readonly scale?: number;
}

/** What the UNet and IRControlNet of Stable Diffusion 2.1 share. */
const sd21Encoder = {
  in_channels: 4,
  model_channels: 320,
  channel_mult: [1, 2, 4, 4],
  num_res_blocks: 2,
  attention_resolutions: [4, 2, 1],
  num_head_channels: 64,
  use_linear_in_transformer: true,
  context_dim: 1024,
} as const;

/** Stable Diffusion 2.1 at full size. */
export const sd21 = {
  unet: { ...sd21Encoder, out_channels: 4 },
  vae: {
    embed_dim: 4,
    ddconfig: { in_channels: 3, out_ch: 3, ch: 128, ch_mult: [1, 2, 4, 4], num_res_blocks: 2, z_channels: 4 },
  },
  text: vitH14,
} as const satisfies LatentConfig;

/** DiffBIR's IRControlNet at full size. */
export const irControlNet: ControlNetConfig = { ...sd21Encoder, hint_channels: 4 };

/** DiffBIR's first stage for faces, which is DifFace's SwinIR, and for pictures of all kinds: one layout. */
export const stage1SwinIR: SwinIRConfig = {
  img_size: 64,
  in_chans: 3,
  embed_dim: 180,
  depths: [6, 6, 6, 6, 6, 6, 6, 6],
  num_heads: [6, 6, 6, 6, 6, 6, 6, 6],
  window_size: 8,
  mlp_ratio: 2,
  sf: 8,
  unshuffle: true,
  unshuffle_scale: 8,
};

/**
 * A latent diffusion model (Rombach et al. 2022): an autoencoder, a text encoder, and a UNet that predicts noise, or v, of
 * latents. Its parts bear the names that DiffBIR gives them; images are in [0, 1].
 */
export class LatentDiffusion extends Module {
  readonly unet: UNet;
  readonly vae: AutoencoderKL;
  readonly clip: { readonly model: TextTransformer };
  readonly #scale: number;
  /** Pixels a side of one latent position. */
  readonly factor: number;
  /** Channels of a latent. */
  readonly channels: number;
  /** Tokens of a text, padding included, and the features of one. */
  readonly textShape: readonly [length: number, width: number];

  constructor({ unet, vae, text, scale = 0.18215 }: LatentConfig) {
    super();
    this.unet = new UNet(unet);
    this.vae = new AutoencoderKL(vae);
    this.clip = { model: new TextTransformer(text) };
    this.#scale = scale;
    this.factor = 2 ** (vae.ddconfig.ch_mult.length - 1);
    this.channels = unet.in_channels;
    this.textShape = [text.text_cfg.context_length, text.text_cfg.width];
  }

  /**
   * What the UNet reads of texts: the features of the last block but one, normalised.
   *
   * @param ids token numbers, i32 [N, length]
   * @returns [N, length, width]
   */
  text(ids: Tensor, options: ForwardOptions = {}): Tensor {
    return this.clip.model.tokens(ids, { ...options, skip: 1 });
  }

  /**
   * The distribution of an image's latent, in the UNet's units.
   *
   * @param image [N, H, W, 3] in [0, 1]; H and W multiples of {@link factor}
   * @returns mean and standard deviation, each [N, H / factor, W / factor, channels]
   */
  encode(image: Tensor, options: ForwardOptions = {}): { mean: Tensor; std: Tensor } {
    return this.distribution(this.vae.encode(affine(image, 2, -1), options));
  }

  /** What {@link encode} gives, out of the autoencoder's own moments. */
  distribution(moments: Tensor): { mean: Tensor; std: Tensor } {
    const { mean, std } = posterior(moments);
    return { mean: affine(mean, this.#scale), std: affine(std, this.#scale) };
  }

  /** What {@link encode} runs from an image to the moments, in order. */
  encoding(): Piece[] {
    return [{ forward: (image) => affine(image, 2, -1), reach: 0, scale: 1 }, ...encodingPieces(this.vae)];
  }

  /** What {@link decode} runs, in order. */
  decoding(): Piece[] {
    const scaled: Piece = { forward: (z) => affine(z, 1 / this.#scale), reach: 0, scale: 1 };
    const toUnit: Piece = { forward: (image) => affine(image, 0.5, 0.5), reach: 0, scale: 1 };
    return [scaled, ...decodingPieces(this.vae), toUnit];
  }

  /**
   * @param z latents [N, h, w, channels], in the UNet's units
   * @returns images [N, h * factor, w * factor, 3], about [0, 1]
   */
  decode(z: Tensor, options: ForwardOptions = {}): Tensor {
    return affine(this.vae.decode(affine(z, 1 / this.#scale), options), 0.5, 0.5);
  }
}
