import { join } from 'node:path';
import { resBlocks } from '../models/blocks.ts';
import { ControlLDM, type DiffBIRConfig } from '../models/diffbir.ts';
import { toDiffusers, unetModules, vaeModules } from '../models/diffusers.ts';
import { OSEDiff } from '../models/osediff.ts';
import { SwinIR } from '../models/swinir.ts';
import type { Module } from '../nn/module.ts';
import { type Source, writeSafetensors } from '../weights/write.ts';

/** A file of a model under its official name: its tensors by their official keys, and what else it says. */
export interface OfficialFile {
  readonly tensors: ReadonlyMap<string, Source>;
  readonly metadata?: Readonly<Record<string, string>>;
}

export type OfficialFiles = ReadonlyMap<string, OfficialFile>;

/** Gives a module's parameters values, under keys that begin with `prefix`. */
export type Fill = (module: Module, prefix?: string) => Map<string, Source>;

/** The files of a restorer, filled by `fill`: of `osediff-face` with adapters of rank `rank`. */
export function officialFiles(
  name: 'diffbir-v1' | 'osediff-face',
  config: DiffBIRConfig,
  fill: Fill,
  rank = 4,
): OfficialFiles {
  const model = new ControlLDM(config);
  const base = new Map([
    ...fill(model.unet, 'model.diffusion_model.'),
    ...fill(model.vae, 'first_stage_model.'),
    ...fill(model.clip.model, 'cond_stage_model.model.'),
  ]);
  const files = new Map<string, OfficialFile>([['v2-1_512-ema-pruned.ckpt', { tensors: base }]]);
  if (name === 'diffbir-v1') {
    files.set('v1_face.pth', { tensors: fill(model.controlnet) });
    return files.set('face_swinir_v1.ckpt', { tensors: fill(new SwinIR(config.stage1), 'state_dict.module.') });
  }
  const metadata = { rank_unet: String(rank), rank_vae: String(rank) };
  return files.set('osediff_face.pkl', { tensors: adapters(config, fill, rank), metadata });
}

/** What OSEDiff's file holds, under diffusers' names: adapters, and the UNet's first convolution, which it trained too. */
function adapters(config: DiffBIRConfig, fill: Fill, rank: number): Map<string, Source> {
  const model = new OSEDiff(config, { unet: rank, vae: rank });
  const { channel_mult, attention_resolutions } = config.unet;
  const attention = channel_mult.map((_, i) => attention_resolutions.includes(2 ** i));
  const unet = { levels: channel_mult.length, blocks: resBlocks(config.unet, 0), attention };
  const { ch_mult, num_res_blocks } = config.vae.ddconfig;
  const names = [
    [model.unet, 'state_dict_unet.', toDiffusers(unetModules(unet))],
    [model.vae, 'state_dict_vae.', toDiffusers(vaeModules({ levels: ch_mult.length, blocks: num_res_blocks }))],
  ] as const;
  const tensors = new Map<string, Source>();
  for (const [module, prefix, rename] of names) {
    for (const [key, source] of fill(module)) {
      const name = rename(key) ?? key;
      if (/\.lora_/.test(key) || name.startsWith('conv_in.')) tensors.set(prefix + name, source);
    }
  }
  return tensors;
}

/** Writes files as safetensors, whatever their names end in: what a file is, its content says. */
export async function writeOfficial(folder: string, files: OfficialFiles): Promise<void> {
  for (const [name, { tensors, metadata }] of files) await writeSafetensors(join(folder, name), tensors, metadata);
}
