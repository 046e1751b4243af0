import { ReflError } from '../errors.ts';
import type { LatentDiffusion } from '../models/latent.ts';
import type { OSEDiff, OSEDiffRanks } from '../models/osediff.ts';
import { initialize } from '../nn/init.ts';
import { folded, LoraLayer } from '../nn/lora.ts';
import type { Module } from '../nn/module.ts';
import type { Entry, WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import type { Stages } from './stages.ts';

/** The networks of a latent diffusion model, each as if its file held nothing else: keys are those of lib/models. */
export interface LatentFiles {
  readonly unet: WeightsFile;
  readonly vae: WeightsFile;
  /** The text tower of a CLIP. */
  readonly text: WeightsFile;
}

/** OSEDiff's adapters, and what else it trained, in the same way: keys as of a network with adapters. */
export interface AdapterFiles {
  readonly unet: WeightsFile;
  readonly vae: WeightsFile;
  readonly ranks: OSEDiffRanks;
}

/** Loads the networks of `model`, frozen. */
export async function loadLatent({ parameters }: Stages, model: LatentDiffusion, files: LatentFiles): Promise<void> {
  await loadWeights(parameters, model.unet, files.unet, { frozen: true });
  await loadWeights(parameters, model.vae, files.vae, { frozen: true });
  await loadWeights(parameters, model.clip.model, files.text, { frozen: true });
}

/** Loads a model that was made with adapters, which stay beside the weights. */
export const loadAdapted = (
  stages: Stages,
  model: OSEDiff,
  files: LatentFiles,
  adapters: AdapterFiles,
): Promise<void> =>
  loadLatent(stages, model, {
    unet: beside(files.unet, model.unet, adapters.unet),
    vae: beside(files.vae, model.vae, adapters.vae),
    text: files.text,
  });

/**
 * Folds the adapters of `adapted`, whose parameters are loaded, into the weights of `plain`, the same model without any. That
 * saves the adapters' part of every run, and costs memory: folded weights come from no file.
 */
export async function foldAdapters({ device, parameters }: Stages, plain: OSEDiff, adapted: OSEDiff): Promise<void> {
  const values = folded(plain, adapted);
  const loaded = adapted.namedParameters();
  for (const [key, parameter] of plain.namedParameters()) {
    if (values.has(parameter)) continue;
    const own = loaded.get(key) ?? loaded.get(key.replace(/[^.]+$/, 'base_layer.$&'));
    if (!own) throw new ReflError('ERR_PROGRAM', `the adapted model has no parameter ${key}`);
    values.set(parameter, own.value);
  }
  await initialize(device, parameters, plain.train(false), 0n, values);
}

/** A file of plain weights as one of the same network with adapters, whose own file replaces what it holds too. */
function beside(base: WeightsFile, module: Module, adapters: WeightsFile): WeightsFile {
  const layers = [...module.namedModules()].filter(([, layer]) => layer instanceof LoraLayer);
  const adapted = new Set(layers.map(([path]) => path));
  const entries = new Map<string, Entry>();
  for (const [key, entry] of base.entries) {
    const path = key.replace(/\.[^.]+$/, '');
    entries.set(adapted.has(path) ? `${path}.base_layer${key.slice(path.length)}` : key, entry);
  }
  for (const [key, entry] of adapters.entries) entries.set(key, entry);
  return { ...base, path: `${base.path} with ${adapters.path}`, entries };
}
