import { affine, sub } from '../graph/ops/elementwise.ts';
import { broadcastTo, pixelShuffle, pixelUnshuffle } from '../graph/ops/layout.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { UNet, type UNetConfig } from '../models/unet.ts';
import { Module, Parameter } from '../nn/module.ts';
import { alphasCumprod } from './schedule.ts';

/** A compact restorer of OSEDiff's one-step form. */
export interface OneStepConfig {
  /** Side in pixels of the crops it was trained on. */
  readonly size: number;
  /** The latent is the image itself with `factor` x `factor` pixels folded into channels: nothing is lost in between. */
  readonly factor: number;
  /** The noise level that the degraded latent is taken to have. */
  readonly timestep: number;
  /** Learned tokens that stand in for a prompt. */
  readonly tokens: number;
  readonly unet: UNetConfig & { readonly context_dim: number };
}

/**
 * Restores in one denoising step, as OSEDiff does: the latent z of the degraded image is taken for the noisy sample
 * at a fixed timestep t, the UNet predicts the noise e in it, and the result is decoded from
 * x0 = (z - sqrt(1 - a_t) e) / sqrt(a_t), with a_t the cumulative alpha.
 *
 * OSEDiff uses t = 999 on a latent of Stable Diffusion's autoencoder. Here z is the image folded into channels, and t is
 * small: its noise, sqrt(1 - a_t), is about as large as the damage in a photograph, so an untrained network (whose
 * last layer is zero) starts as nearly the identity.
 */
export class OneStepRestorer extends Module {
  readonly unet: UNet;
  readonly context: Parameter;
  readonly #config: OneStepConfig;

  constructor(config: OneStepConfig) {
    super();
    this.#config = config;
    this.unet = new UNet(config.unet);
    this.context = new Parameter([1, config.tokens, config.unet.context_dim], { kind: 'normal', std: 0.02 });
  }

  /** Side in pixels it was trained at. */
  get size(): number {
    return this.#config.size;
  }

  /** Image sides must be multiples of this. */
  get multiple(): number {
    return this.#config.factor * 2 ** (this.#config.unet.channel_mult.length - 1);
  }

  /** @param x degraded images [N, H, W, 3] in [0, 1]; @returns restored ones, of that shape and about that range */
  forward(x: Tensor): Tensor {
    return this.trace(() => {
      const { factor, timestep, tokens, unet } = this.#config;
      const alpha = alphasCumprod()[timestep];
      const [n] = x.shape;
      const z = pixelUnshuffle(affine(x, 2, -1), factor);
      const times = constant(new Int32Array(n).fill(timestep), [n], 'i32');
      const context = broadcastTo(this.context.beside(x), [n, tokens, unet.context_dim]);
      const noise = this.unet.forward(z, times, context);
      const x0 = affine(sub(z, affine(noise, Math.sqrt(1 - alpha))), 1 / Math.sqrt(alpha));
      return affine(pixelShuffle(x0, factor), 0.5, 0.5);
    });
  }
}
