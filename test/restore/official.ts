import { join } from 'node:path';
import { ControlLDM } from '../../lib/models/diffbir.ts';
import { toDiffusers, unetModules, vaeModules } from '../../lib/models/diffusers.ts';
import { OSEDiff } from '../../lib/models/osediff.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { tensorsOf, tinyDiffBIR } from './latent_support.ts';

/** Files of one model under their official names: the tensors of each, by their official keys, and what else it says. */
export type OfficialFiles = Map<string, { tensors: Map<string, Source>; metadata?: Record<string, string> }>;

/** Stable Diffusion as one checkpoint, with scalars that belong to no network. */
function baseFile(): OfficialFiles {
  const model = new ControlLDM(tinyDiffBIR);
  const tensors = new Map([
    ['alphas_cumprod', { dtype: 'F32', shape: [3], data: () => Float32Array.of(1, 2, 3) } satisfies Source],
    ...tensorsOf(model.unet, 1, 'model.diffusion_model.'),
    ...tensorsOf(model.vae, 2, 'first_stage_model.'),
    ...tensorsOf(model.clip.model, 3, 'cond_stage_model.model.'),
  ]);
  return new Map([['v2-1_512-ema-pruned.ckpt', { tensors }]]);
}

/** DiffBIR version 1 for faces. */
export function diffbirFiles(): OfficialFiles {
  const stage1 = tensorsOf(new SwinIR(tinyDiffBIR.stage1), 5, 'state_dict.module.');
  return new Map([
    ...baseFile(),
    ['v1_face.pth', { tensors: tensorsOf(new ControlLDM(tinyDiffBIR).controlnet, 4) }],
    ['face_swinir_v1.ckpt', { tensors: stage1 }],
  ]);
}

/** OSEDiff for faces, its adapters under diffusers' names. */
export function osediffFiles(): OfficialFiles {
  const model = new OSEDiff(tinyDiffBIR, { unet: 2, vae: 2 });
  const { channel_mult, attention_resolutions } = tinyDiffBIR.unet;
  const unet = {
    levels: channel_mult.length,
    blocks: 1,
    attention: channel_mult.map((_, i) => attention_resolutions.includes(2 ** i)),
  };
  const vae = { levels: tinyDiffBIR.vae.ddconfig.ch_mult.length, blocks: 1 };
  const tensors = new Map<string, Source>();
  const add = (own: Map<string, Source>, prefix: string, rename: (key: string) => string | undefined): void => {
    for (const [key, source] of own) {
      const name = rename(key)!;
      if (/\.lora_/.test(key) || name.startsWith('conv_in.')) tensors.set(prefix + name, source);
    }
  };
  add(tensorsOf(model.unet, 6), 'state_dict_unet.', toDiffusers(unetModules(unet)));
  add(tensorsOf(model.vae, 7), 'state_dict_vae.', toDiffusers(vaeModules(vae)));
  const metadata = { rank_unet: '2', rank_vae: '2' };
  return new Map([...baseFile(), ['osediff_face.pkl', { tensors, metadata }]]);
}

/** Writes files as safetensors, whatever their names end in: what a file is, its content says. */
export async function writeOfficial(folder: string, files: OfficialFiles): Promise<void> {
  for (const [name, { tensors, metadata }] of files) await writeSafetensors(join(folder, name), tensors, metadata);
}
