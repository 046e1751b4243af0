import { ReflError } from '../errors.ts';
import { input } from '../graph/tensor.ts';
import { readBytes } from '../image/files.ts';
import { adaptersOf } from '../models/adapters.ts';
import { findModelFiles } from '../models/catalogue.ts';
import { type DiffBIRConfig, diffbir } from '../models/diffbir.ts';
import { LatentDiffusion } from '../models/latent.ts';
import { partOf } from '../models/parts.ts';
import { SwinIR } from '../models/swinir.ts';
import type { Device } from '../runtime/index.ts';
import { ClipTokenizer } from '../text/tokenizer.ts';
import { openWeights } from '../weights/open.ts';
import { DiffBIRModel, type DiffBIRVersion, diffbirVersions } from './diffbir.ts';
import type { ImageModel } from './image_model.ts';
import type { LatentModelOptions } from './latent.ts';
import type { LatentFiles } from './latent_files.ts';
import { CropModel } from './model.ts';
import { OSEDiffModel } from './osediff.ts';
import { Stages } from './stages.ts';

export const weightTypes = ['f32', 'bf16', 'f16'] as const;
export type WeightType = (typeof weightTypes)[number];

/** What opens a model that its user brings. */
export interface ModelSource {
  /** The folder that holds the official files of the model. */
  readonly weights?: string;
  /** CLIP's `tokenizer.json`, its list of merges, or a folder with one of them; those in `weights` when left out. */
  readonly tokenizer?: string;
  /** A JSON file of the networks' configurations, as {@link Networks}, where they are not of the published size. */
  readonly networks?: string;
  /**
   * What weights are kept in, `f32` by default. In `bf16` or `f16` they take half the memory, rounded to 8 and 11 bits of precision, and
   * pictures take a little longer: the CPU computes in float32 all the same. Adapters that are folded in stay in float32 besides.
   */
  readonly dtype?: WeightType;
  /** Whether OSEDiff's adapters are folded into its weights: faster, for more memory. */
  readonly fold?: boolean;
  /** Gigabytes (10^9 bytes) that its programs keep to besides weights: half of what is free when left out. Less makes smaller tiles. */
  readonly memory?: number;
}

/** Networks of another size than the published ones, in the words of their official configurations. */
export interface Networks extends DiffBIRConfig {
  /** Side of the squares that faces are brought to. */
  readonly size: number;
}

const published: Networks = { ...diffbir, size: 512 };

type Open = (
  options: LatentModelOptions,
  paths: ReadonlyMap<string, string>,
  config: DiffBIRConfig,
  fold: boolean | undefined,
) => Promise<ImageModel>;

const openDiffBIR =
  (version: DiffBIRVersion): Open =>
  async (options, paths, config, fold) => {
    if (fold !== undefined)
      throw new ReflError('ERR_OPTION', `${options.name} has no use for fold: it has no adapters`);
    const [control, stage1] = [await openWeights(paths.get('controlnet')!), await openWeights(paths.get('stage1')!)];
    const own = { controlnet: partOf(control, 'controlnet'), stage1: partOf(stage1, 'swinir') };
    return DiffBIRModel.load(options, version, { ...(await openBase(paths)), ...own }, config);
  };

const openOSEDiff =
  (mendsColours: boolean): Open =>
  async (options, paths, config, fold) => {
    const adapters = adaptersOf(await openWeights(paths.get('adapters')!));
    return OSEDiffModel.load(options, { config, mendsColours, fold }, await openBase(paths), adapters);
  };

/** The networks of Stable Diffusion. */
export async function openBase(paths: ReadonlyMap<string, string>): Promise<LatentFiles> {
  const file = await openWeights(paths.get('base')!);
  return { unet: partOf(file, 'unet'), vae: partOf(file, 'vae'), text: partOf(file, 'text') };
}

/** Models whose files the user brings, by the names that lib/models/catalogue.ts knows them under. */
const brought: Readonly<Record<string, Open>> = {
  'diffbir-v1': openDiffBIR(diffbirVersions.v1),
  'diffbir-v2': openDiffBIR(diffbirVersions.v2),
  'diffbir-v2.1': openDiffBIR(diffbirVersions['v2.1']),
  osediff: openOSEDiff(true),
  'osediff-face': openOSEDiff(false),
};

/** Names of the restorers whose files the user brings. */
export const broughtModels: readonly string[] = Object.keys(brought);

/**
 * Opens a model by its name or path. Throws ERR_OPTION on a name that is not known or lacks its folder, ERR_FILE where files are
 * missing, with all their names, ERR_WEIGHTS where one does not fit.
 */
export async function openImageModel(device: Device, name: string, source: ModelSource = {}): Promise<ImageModel> {
  if (!Object.hasOwn(brought, name)) {
    const useless = Object.entries(source).find(([, value]) => value !== undefined);
    if (useless) throw new ReflError('ERR_OPTION', `${name} has no use for ${useless[0]}`);
    return CropModel.load(device, name);
  }
  if (source.memory !== undefined && !(source.memory >= 0)) {
    throw new ReflError('ERR_OPTION', `memory must be a number of gigabytes, got ${source.memory}`);
  }
  const { paths, config } = await findBrought(name, source);
  const words = source.tokenizer ?? paths.get('tokenizer');
  const tokenizer = words === undefined ? undefined : await ClipTokenizer.load(words);
  const memory = source.memory === undefined ? undefined : source.memory * 1e9;
  const stages = new Stages(device, memory, { packed: packedAs(device, source.dtype) });
  try {
    return await brought[name]({ name, size: config.size, stages, tokenizer }, paths, config, source.fold);
  } catch (error) {
    stages.dispose();
    throw error;
  }
}

function packedAs({ kind }: Device, dtype: WeightType = 'f32'): 'bf16' | 'f16' | undefined {
  if (!weightTypes.includes(dtype)) {
    throw new ReflError('ERR_OPTION', `dtype must be one of ${weightTypes.join(', ')}, got ${dtype}`);
  }
  if (dtype === 'f32') return undefined;
  if (kind !== 'cpu')
    throw new ReflError('ERR_OPTION', `the device ${kind} keeps weights in f32: leave out dtype ${dtype}`);
  return dtype;
}

/**
 * Where the files of a model lie that its user brings, by role (the tokenizer may be missing), and its configuration. Throws as
 * {@link openImageModel}.
 */
export async function findBrought(
  name: string,
  { weights, networks }: ModelSource,
): Promise<{ paths: ReadonlyMap<string, string>; config: Networks }> {
  if (weights === undefined) {
    const how = `name the folder with its files as weights (refl-native models ${name} lists them)`;
    throw new ReflError('ERR_OPTION', `${name} does not come with this package: ${how}`);
  }
  const paths = await findModelFiles(name, weights, ['tokenizer']);
  return { paths, config: await readNetworks(networks) };
}

/**
 * Reads a file of configurations, and builds the networks once, for it may say anything: throws ERR_OPTION where it describes none.
 * Without one they are the published ones.
 */
export async function readNetworks(path: string | undefined): Promise<Networks> {
  if (path === undefined) return published;
  try {
    const config = JSON.parse((await readBytes(path)).toString()) as Networks;
    const model = new LatentDiffusion(config);
    new SwinIR(config.stage1).forward(input('image', [1, config.size, config.size, 3]));
    const unit = model.factor * model.unet.multiple;
    if (!(config.size > 0 && config.size <= 4096 && config.size % unit === 0)) {
      throw new Error(`its size must be a multiple of ${unit} up to 4096, got ${config.size}`);
    }
    return config;
  } catch (cause) {
    if (cause instanceof ReflError && cause.code === 'ERR_FILE') throw cause;
    throw new ReflError('ERR_OPTION', `${path} describes no networks: ${(cause as Error).message}`, { cause });
  }
}
