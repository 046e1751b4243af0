import type { DiffBIRConfig } from '../../lib/models/diffbir.ts';
import { ControlLDM } from '../../lib/models/diffbir.ts';
import { OSEDiff } from '../../lib/models/osediff.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import type { Module } from '../../lib/nn/module.ts';
import type { DiffBIRFiles } from '../../lib/restore/diffbir.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { random } from '../support/random.ts';

/** What its UNet and its ControlNet share. */
const encoder = {
  in_channels: 4,
  model_channels: 8,
  channel_mult: [1, 2],
  num_res_blocks: 1,
  attention_resolutions: [2],
  num_head_channels: 4,
  use_linear_in_transformer: true,
  context_dim: 6,
  num_groups: 4,
} as const;

/** A DiffBIR of a few thousand weights, in the layout of the published one: images are folded by 2, latents must be even. */
export const tinyDiffBIR: DiffBIRConfig = {
  unet: { ...encoder, out_channels: 4 },
  controlnet: { ...encoder, hint_channels: 4 },
  vae: {
    embed_dim: 4,
    ddconfig: { in_channels: 3, out_ch: 3, ch: 8, ch_mult: [1, 1], num_res_blocks: 1, z_channels: 4, num_groups: 4 },
  },
  text: { embed_dim: 3, text_cfg: { context_length: 5, vocab_size: 515, width: 6, heads: 2, layers: 2 } },
  stage1: {
    img_size: 8,
    in_chans: 3,
    embed_dim: 8,
    depths: [2],
    num_heads: [2],
    window_size: 4,
    mlp_ratio: 2,
    sf: 2,
    unshuffle: true,
    unshuffle_scale: 2,
  },
};

/** Random weights for every parameter, none of them zero: matrices keep the size of what they multiply, norms scale by about 1, adapters add little. */
export function tensorsOf(module: Module, seed: number, prefix = ''): Map<string, Source> {
  const { next } = random(seed);
  return new Map(
    [...module.namedParameters()].map(([key, { value }]) => {
      const fan = value.shape.slice(1).reduce((a, b) => a * b, 1);
      const scale = key.includes('.lora_B.') ? 0.05 : value.rank > 1 ? Math.sqrt(3 / fan) : 0.2;
      const middle =
        /norm|ln_|(in|out)_layers\.0|^out\.0/.test(key) && key.endsWith('weight') && value.rank === 1 ? 1 : 0;
      const values = Float32Array.from({ length: value.size }, () => middle + scale * (2 * next() - 1));
      return [prefix + key, { dtype: 'F32', shape: value.shape, data: () => values }] as const;
    }),
  );
}

/** Writes the parts of a DiffBIR, each as a safetensors file under the names of lib/models, and returns their paths. */
export async function writeDiffBIR(
  at: (name: string) => string,
  config = tinyDiffBIR,
): Promise<Record<string, string>> {
  const model = new ControlLDM(config);
  const parts: Record<string, Module> = {
    unet: model.unet,
    vae: model.vae,
    text: model.clip.model,
    controlnet: model.controlnet,
    stage1: new SwinIR(config.stage1),
  };
  return writeParts(at, parts);
}

/** Opens the parts that {@link writeDiffBIR} wrote. */
export async function openDiffBIR(paths: Record<string, string>): Promise<DiffBIRFiles> {
  const [unet, vae, text, controlnet, stage1] = await Promise.all(
    ['unet', 'vae', 'text', 'controlnet', 'stage1'].map((name) => openWeights(paths[name])),
  );
  return { unet, vae, text, controlnet, stage1 };
}

/** Writes what OSEDiff adds to Stable Diffusion: its adapters, and the UNet's first convolution, which it trained too. */
export async function writeAdapters(
  at: (name: string) => string,
  config = tinyDiffBIR,
  rank = 2,
): Promise<Record<string, string>> {
  const model = new OSEDiff(config, { unet: rank, vae: rank });
  const kept = (module: Module, also: RegExp): Map<string, Source> =>
    new Map([...tensorsOf(module, 77)].filter(([key]) => /\.lora_/.test(key) || also.test(key)));
  const paths = { unet: at('adapters-unet.safetensors'), vae: at('adapters-vae.safetensors') };
  await writeSafetensors(paths.unet, kept(model.unet, /^input_blocks\.0\.0\./));
  await writeSafetensors(paths.vae, kept(model.vae, /^$/));
  return paths;
}

async function writeParts(
  at: (name: string) => string,
  parts: Record<string, Module>,
): Promise<Record<string, string>> {
  const paths: Record<string, string> = {};
  let seed = 1;
  for (const [name, module] of Object.entries(parts)) {
    paths[name] = at(`${name}.safetensors`);
    await writeSafetensors(paths[name], tensorsOf(module, seed++));
  }
  return paths;
}
