import { addLora } from '../nn/lora.ts';
import type { UNet } from './unet.ts';
import type { AutoencoderKL } from './vae.ts';

export interface OsediffLora {
  rank: number;
  /** peft's default, 8, which OSEDiff leaves in place: scaling is alpha / rank. */
  alpha?: number;
}

const unetAdapters: Readonly<Record<string, RegExp>> = {
  default_encoder: /^input_blocks\./,
  default_decoder: /^(output_blocks|out)\./,
  default_others: /^middle_block\./,
};

/**
 * OSEDiff's adapters of a UNet: every convolution and linear layer but those of the timestep, under one adapter name
 * for each half and one for the middle. Returns the adapted paths by adapter.
 */
export function addUnetLora(unet: UNet, options: OsediffLora): Record<string, string[]> {
  return Object.fromEntries(
    Object.entries(unetAdapters).map(([adapter, part]) => [
      adapter,
      addLora(unet, { ...options, adapter }, (path) => part.test(path) && !path.includes('.emb_layers.')),
    ]),
  );
}

/** OSEDiff's adapters of an autoencoder: the whole encoder with its last 1x1 convolution. Returns the adapted paths. */
export const addVaeLora = (vae: AutoencoderKL, options: OsediffLora): string[] =>
  addLora(vae, { ...options, adapter: 'default_encoder' }, (path) => /^(encoder\.|quant_conv$)/.test(path));
