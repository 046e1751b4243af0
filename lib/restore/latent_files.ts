import type { Adapters } from '../models/adapters.ts';
import type { LatentDiffusion } from '../models/latent.ts';
import type { OSEDiff } from '../models/osediff.ts';
import { initialize } from '../nn/init.ts';
import { folded, LoraLayer } from '../nn/lora.ts';
import type { Module } from '../nn/module.ts';
import type { Parameters } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { type Loadable, type LoadOptions, loadWeights } from '../weights/load.ts';
import { renamed } from '../weights/rename.ts';
import { verifyAll } from '../weights/sharded.ts';
import type { Stages } from './stages.ts';

/** The networks of a latent diffusion model, each as if its file held nothing else: keys are those of lib/models. */
export interface LatentFiles {
  readonly unet: WeightsFile;
  readonly vae: WeightsFile;
  /** The text tower of a CLIP. */
  readonly text: WeightsFile;
}

/** Loads the networks of `model`, all frozen unless `options` say otherwise. */
export async function loadLatent(
  { parameters }: Stages,
  model: LatentDiffusion,
  files: LatentFiles,
  options: Pick<LoadOptions, 'frozen'> = { frozen: true },
): Promise<void> {
  await loadWeights(parameters, model.unet, files.unet, options);
  await loadWeights(parameters, model.vae, files.vae, options);
  await loadWeights(parameters, onlyRead(model), files.text, options);
}

/** The text tower as far as diffusion reads it: some files hold the last block and the projection besides, others do not. */
function onlyRead({ clip: { model } }: LatentDiffusion): Loadable {
  const last = `transformer.resblocks.${model.transformer.resblocks.length - 1}.`;
  const unread = (key: string): boolean => key.startsWith(last) || key === 'text_projection' || key === 'logit_scale';
  const all = [...model.namedParameters()];
  return {
    namedParameters: () => new Map(all.filter(([key]) => !unread(key))),
    namedBuffers: () => new Map(all.filter(([key]) => unread(key))),
  };
}

/** Loads a model that was made with adapters, which stay beside the weights. */
export async function loadAdapted(
  stages: Stages,
  model: OSEDiff,
  { unet, vae, text }: LatentFiles,
  adapters: Adapters,
  options?: Pick<LoadOptions, 'frozen'>,
): Promise<void> {
  const both = {
    unet: beside(unet, model.unet, adapters.unet),
    vae: beside(vae, model.vae, adapters.vae),
    text,
  };
  await loadLatent(stages, model, both, options);
}

/**
 * Loads a model that was made without adapters, with those of `adapters` folded into its weights. That saves the adapters' part
 * of every run, and costs memory: folded weights come from no file.
 */
export async function loadFolded(
  stages: Stages,
  model: OSEDiff,
  adapted: OSEDiff,
  files: LatentFiles,
  adapters: Adapters,
): Promise<void> {
  const { device, parameters } = stages;
  await loadAdapted(stages, adapted, files, adapters);
  for (const [plain, full] of [
    [model.unet, adapted.unet],
    [model.vae, adapted.vae],
  ] as const) {
    const values = folded(plain, full);
    const loaded = full.namedParameters();
    for (const [key, parameter] of plain.namedParameters()) {
      const own = loaded.get(key) ?? loaded.get(key.replace(/[^.]+$/, 'base_layer.$&'));
      if (!values.has(parameter)) values.set(parameter, own!.value);
    }
    await initialize(device, parameters, plain.train(false), 0n, values);
  }
  await loadWeights(parameters, onlyRead(model), files.text, { frozen: true });
}

/** A file of plain weights as one of the same network with adapters, whose own file replaces what it holds too. */
function beside(base: WeightsFile, module: Module, adapters: WeightsFile): WeightsFile {
  const entries = new Map(renamed(base, baseNames(module)).entries);
  for (const [key, entry] of adapters.entries) entries.set(key, entry);
  const path = `${base.path} with ${adapters.path}`;
  return { path, metadata: base.metadata, entries, verify: verifyAll([base, adapters]) };
}

/** The names that plain weights have in a network with adapters. */
function baseNames(module: Module): (key: string) => string {
  const layers = [...module.namedModules()].filter(([, layer]) => layer instanceof LoraLayer);
  const adapted = new Set(layers.map(([path]) => path));
  return (key) => {
    const path = key.replace(/\.[^.]+$/, '');
    return adapted.has(path) ? `${path}.base_layer${key.slice(path.length)}` : key;
  };
}

/** Loads a network that was made with adapters, or without, from a file of plain weights. Adapters get no values. */
export async function loadBase(parameters: Parameters, network: Module, file: WeightsFile): Promise<void> {
  const own = [...network.namedParameters()].filter(([key]) => !/\.lora_[AB]\./.test(key));
  const base = { namedParameters: () => new Map(own), namedBuffers: () => network.namedBuffers() };
  await loadWeights(parameters, base, renamed(file, baseNames(network)));
}
