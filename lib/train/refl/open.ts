import { join } from 'node:path';
import { alphasCumprod, zeroTerminalSnr } from '../../diffusion/schedule.ts';
import { ReflError } from '../../errors.ts';
import { adapterNames, adaptersOf } from '../../models/adapters.ts';
import { trainedAdapters, trainedControlNet, trainedStage1 } from '../../models/catalogue.ts';
import { ControlNet } from '../../models/controlnet.ts';
import { ControlLDM } from '../../models/diffbir.ts';
import type { LatentDiffusion } from '../../models/latent.ts';
import { OSEDiff } from '../../models/osediff.ts';
import { partOf } from '../../models/parts.ts';
import { SwinIR } from '../../models/swinir.ts';
import { initialize } from '../../nn/init.ts';
import type { Module } from '../../nn/module.ts';
import { type DiffBIRVersion, diffbirVersions } from '../../restore/diffbir.ts';
import { loadAdapted, loadBase, loadLatent } from '../../restore/latent_files.ts';
import { openOneStep } from '../../restore/model.ts';
import { findBrought, type ModelSource, openBase, readNetworks } from '../../restore/open.ts';
import { Prompts } from '../../restore/prompts.ts';
import type { Stages } from '../../restore/stages.ts';
import { ClipTokenizer } from '../../text/tokenizer.ts';
import { type LoadOptions, loadWeights } from '../../weights/load.ts';
import { openWeights } from '../../weights/open.ts';
import { saveCheckpoint } from '../checkpoint.ts';
import { type LoraSettings, saveFolded, trainLora } from './lora.ts';
import type { Precision } from './restored.ts';
import type { WalkOptions } from './rollout.ts';
import type { Compat } from './session.ts';
import { copyValues, frozenBeside, madeIn, trainAdapters, trainControlNet, widenTrained } from './trainable.ts';
import { ControlLDMTrainee, NetworkTrainee, OSEDiffTrainee, type TextFeatures, type Trainee } from './trainees.ts';

export interface TraineeOptions extends ModelSource, Precision {
  /** Side of the images; what the model was made for by default. */
  readonly side?: number;
  /** How restorers of DiffBIR's form get to the steps that have gradients. */
  readonly walk: WalkOptions;
  /** Whether blocks are computed a second time in the backward pass, to save memory. */
  readonly recompute: boolean;
  /** Whether captions steer restorers that read texts, as OSEDiff was trained to: the empty one does otherwise. */
  readonly prompts?: boolean;
  readonly compat?: Compat;
  /**
   * Of a restorer that is one network: the name or file of the one whose images its own should stay near, if any; true for what
   * it is itself before it trains. The others have frozen copies anyway.
   */
  readonly anchor?: string | true;
  /** Adapters that train in the place of DiffBIR's whole ControlNet. */
  readonly lora?: LoraSettings;
}

/** A restorer that is ready to train. */
export interface OpenedTrainee {
  readonly trainee: Trainee;
  readonly side: number;
  /** Weight of the drift from what it is now, as the paper has it for its form. */
  readonly drift: number;
  /** Where its weights are from, by what they are. */
  readonly sources: Readonly<Record<string, string>>;
  /** Writes what was trained into a folder, under a name and in a form that `restore` finds; resolves to the path. */
  save(folder: string): Promise<string>;
}

type Open = (stages: Stages, name: string, options: TraineeOptions) => Promise<OpenedTrainee>;

/** The restorer that ships, or a file of its kind. */
const openNetwork: Open = async ({ parameters }, name, { side, anchor, prompts, compute }) => {
  if (prompts) throw new ReflError('ERR_OPTION', `${name} reads no texts: captions cannot steer it`);
  const load = async (source: string, options?: LoadOptions) => {
    const opened = await openOneStep(source);
    await loadWeights(parameters, opened.module, opened.file, options);
    return opened;
  };
  const { file, module } = await load(name);
  const taken = checkSide(name, side ?? module.size, module.multiple);
  const leaves = new Map([...module.namedParameters()].map(([key, { value }]) => [key, value]));
  const save = async (folder: string): Promise<string> => {
    const path = join(folder, 'restorer.safetensors');
    await saveCheckpoint(path, parameters, leaves, file.metadata, 'F16');
    return path;
  };
  const path = anchor === true ? name : anchor;
  const kept = path === undefined ? undefined : await load(path, { frozen: true });
  return {
    trainee: new NetworkTrainee(module, taken, { frozen: kept?.module, compute }),
    ...{ side: taken, drift: kept ? 1 : 0, save },
    sources: { restorer: file.path, ...(kept && { anchor: kept.file.path }) },
  };
};

/** SwinIR by itself, in the layout of DiffBIR's first stage: it may be put back as that. */
const openSwinIR: Open = async ({ parameters }, name, options) => {
  const { weights, networks, side, recompute, prompts, compute, anchor } = options;
  if (weights === undefined) throw new ReflError('ERR_OPTION', `${name} needs the path of its file as weights`);
  if (prompts) throw new ReflError('ERR_OPTION', `${name} reads no texts: captions cannot steer it`);
  const { stage1, size } = await readNetworks(networks);
  const load = async (path: string, options?: LoadOptions): Promise<SwinIR> => {
    const network = new SwinIR(stage1);
    await loadWeights(parameters, network, partOf(await openWeights(path), 'swinir'), options);
    return network;
  };
  const module = await load(weights);
  const taken = checkSide(name, side ?? size, (stage1.unshuffle_scale ?? 1) * stage1.window_size);
  const save = async (folder: string): Promise<string> => {
    const path = join(folder, trainedStage1);
    await saveCheckpoint(path, parameters, valuesOf(module), { format: 'pt' });
    return path;
  };
  const kept = anchor === true ? weights : anchor;
  const frozen = kept === undefined ? undefined : await load(kept, { frozen: true });
  const trainee = new NetworkTrainee(module, taken, { frozen, compute, options: { recompute } });
  const sources = { restorer: weights, ...(kept !== undefined && { anchor: kept }) };
  return { trainee, side: taken, drift: frozen ? 1 : 0, sources, save };
};

const openDiffBIR =
  (version: DiffBIRVersion): Open =>
  async (stages, name, { walk, recompute, compat, prompts, compute, lora, ...options }) => {
    const { device, parameters } = stages;
    const { paths, config } = await findBrought(name, options);
    const model = madeIn(compute, () => new ControlLDM(config));
    if (lora) trainLora(model, lora);
    else trainControlNet(model);
    widenTrained(model);
    const side = checkSide(name, options.side ?? config.size, model.factor * model.unet.multiple);
    await loadLatent(stages, model, await openBase(paths));
    const control = partOf(await openWeights(paths.get('controlnet')!), 'controlnet');
    await loadBase(parameters, model.controlnet, control);
    if (lora) await initialize(device, parameters, model.controlnet, BigInt(lora.seed));
    const copy = madeIn(compute, () => new ControlNet(config.controlnet));
    const stage1 = madeIn(compute, () => new SwinIR(config.stage1));
    const frozen = frozenBeside(copy, model.controlnet);
    if (!lora) await loadWeights(parameters, frozen, control, { frozen: true });
    await loadWeights(parameters, stage1, partOf(await openWeights(paths.get('stage1')!), 'swinir'), { frozen: true });
    const context = await textOf(stages, model, prompts ? (paths.get('tokenizer') ?? options.tokenizer) : undefined);
    const { prediction, zeroTerminalSnr: isWhole } = version;
    const noise = { prediction, alphas: isWhole ? zeroTerminalSnr(alphasCumprod()) : alphasCumprod() };
    const parts = { model, stage1, frozen, side, context, walk, noise, compat, compute, lora };
    const trainee = await ControlLDMTrainee.create(device, parameters, { ...parts, options: { recompute } });
    const save = async (folder: string): Promise<string> => {
      const path = join(folder, trainedControlNet);
      const plain = new ControlNet(config.controlnet);
      if (lora) await saveFolded(path, stages, { adapted: model.controlnet, plain, file: control });
      else await saveCheckpoint(path, parameters, valuesOf(model.controlnet), { format: 'pt' });
      return path;
    };
    return { trainee, side, drift: 1e-4, sources: sourcesOf(paths), save };
  };

const openOSEDiff: Open = async (stages, name, { recompute, prompts, compute, ...options }) => {
  const { device, parameters } = stages;
  const { paths, config } = await findBrought(name, options);
  const file = await openWeights(paths.get('adapters')!);
  const adapters = adaptersOf(file);
  const { ranks } = adapters;
  const [model, copy] = [0, 1].map(() => {
    const made = madeIn(compute, () => new OSEDiff(config, ranks));
    trainAdapters(made);
    return widenTrained(made);
  });
  const side = checkSide(name, options.side ?? config.size, model.factor * model.unet.multiple);
  await loadAdapted(stages, model, await openBase(paths), adapters, {}); // what trains is not frozen
  const frozen = frozenBeside(copy, model);
  await copyValues(parameters, frozen, model);
  const context = await textOf(stages, model, prompts ? (paths.get('tokenizer') ?? options.tokenizer) : undefined);
  const parts = { model, frozen, side, context, compute, options: { recompute } };
  const trainee = await OSEDiffTrainee.create(device, parts);
  const official = adapterNames(file);
  const save = async (folder: string): Promise<string> => {
    const path = join(folder, trainedAdapters);
    const trained = [...model.namedParameters()].filter(([, { trainable }]) => trainable);
    const leaves = new Map(trained.map(([key, { value }]) => [official(key), value]));
    await saveCheckpoint(path, parameters, leaves, { rank_unet: String(ranks.unet), rank_vae: String(ranks.vae) });
    return path;
  };
  return { trainee, side, drift: 1, sources: sourcesOf(paths), save };
};

/** How the models that users bring are opened. */
const brought: Readonly<Record<string, Open>> = {
  swinir: openSwinIR,
  'diffbir-v1': openDiffBIR(diffbirVersions.v1),
  'diffbir-v2': openDiffBIR(diffbirVersions.v2),
  'diffbir-v2.1': openDiffBIR(diffbirVersions['v2.1']),
  osediff: openOSEDiff,
  'osediff-face': openOSEDiff,
};

/** Names of the models that users bring and that train. */
export const trainedModels: readonly string[] = Object.keys(brought);

/**
 * Opens a restorer for training, by its name or path; its values come to lie in the parameters of `stages`. Throws ERR_OPTION for a
 * name that is unknown, cannot train or lacks its folder, ERR_FILE where files are missing, ERR_WEIGHTS where one does not fit.
 */
export async function openTrainee(stages: Stages, name: string, options: TraineeOptions): Promise<OpenedTrainee> {
  checkLora(name, options);
  if (Object.hasOwn(brought, name)) return brought[name](stages, name, options);
  return openNetwork(stages, name, options);
}

/** Throws ERR_OPTION for adapters where none can be. */
export function checkLora(name: string, { lora }: Pick<TraineeOptions, 'lora'>): void {
  if (!lora || /^diffbir-/.test(name)) return;
  throw new ReflError('ERR_OPTION', `${name} takes no adapters: LoRA is for DiffBIR's ControlNet`);
}

function checkSide(name: string, side: number, unit: number): number {
  if (side > 0 && side % unit === 0) return side;
  throw new ReflError('ERR_OPTION', `${name} trains on images of multiples of ${unit} pixels, got ${side}`);
}

/**
 * What the networks read of the empty text, which steers all images; and, given a tokenizer's file, of others. Throws ERR_OPTION
 * where its words are not those that the network knows.
 */
async function textOf(stages: Stages, model: LatentDiffusion, tokenizer: string | undefined): Promise<TextFeatures> {
  const words = tokenizer === undefined ? undefined : await ClipTokenizer.load(tokenizer);
  const prompts = new Prompts(stages, model, words);
  const of = words && ((text: string) => prompts.features([text]));
  return { values: await prompts.features(['']), shape: model.textShape, of, words: words?.digest };
}

/** Of all files of a model but the tokenizer's, which is told by its words. */
function sourcesOf(paths: ReadonlyMap<string, string>): Record<string, string> {
  const { tokenizer: _, ...weights } = Object.fromEntries(paths);
  return weights;
}

const valuesOf = (module: Module) => new Map([...module.namedParameters()].map(([key, { value }]) => [key, value]));
