import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type OneStepConfig, OneStepRestorer } from '../diffusion/onestep.ts';
import { TRAIN_STEPS } from '../diffusion/schedule.ts';
import { ReflError } from '../errors.ts';
import { affine, cast, clamp } from '../graph/ops/elementwise.ts';
import { allFinite } from '../graph/ops/optim.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import type { Device, Parameters, Program } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import { openSafetensors } from '../weights/safetensors.ts';
import { checkSettings, type ImageModel, type ImageOptions, type Settings } from './image_model.ts';

/** Models that ship with the package, by name. */
export const shippedModels: Readonly<Record<string, string>> = {
  'face-256': fileURLToPath(new URL('../../weights/face-256.safetensors', import.meta.url)),
};

/** Value of the metadata key `format` in a file that {@link CropModel} can load. */
const FORMAT = 'refl-native/onestep';

/** A one-step restorer on a device, for squares of its own size. One program for each number of squares, made on first use. */
export class CropModel implements ImageModel {
  readonly anySize = false;
  readonly size: number;
  private readonly path: string;
  private readonly module: OneStepRestorer;
  private readonly device: Device;
  private readonly parameters: Parameters;
  private readonly programs = new Map<number, Promise<Program>>();

  private constructor(path: string, module: OneStepRestorer, device: Device, parameters: Parameters) {
    this.path = path;
    this.module = module;
    this.size = module.size;
    this.device = device;
    this.parameters = parameters;
  }

  /**
   * Loads a model by name or path. Throws ERR_OPTION on an unknown name; ERR_FILE, or ERR_WEIGHTS on a file that is corrupt,
   * holds another kind of model, or has weights that are not finite.
   */
  static async load(device: Device, model: string): Promise<CropModel> {
    const { file, module } = await openOneStep(model);
    const { path } = file;
    const parameters = device.parameters();
    try {
      await loadWeights(parameters, module.train(false), file);
      await checkFinite(device, parameters, module, path);
      return new CropModel(path, module, device, parameters);
    } catch (error) {
      parameters.dispose();
      throw error;
    }
  }

  async restore(squares: readonly Rgb[], { batch, signal, onProgress, ...settings }: ImageOptions): Promise<Rgb[]> {
    this.check(settings);
    const restored: Rgb[] = [];
    const bytes = this.size * this.size * 3;
    while (restored.length < squares.length) {
      const done = restored.length;
      const chunk = squares.slice(done, done + batch);
      const image = new Uint8Array(chunk.length * bytes);
      for (const [i, { data }] of chunk.entries()) image.set(data, i * bytes);
      const program = await this.program(chunk.length);
      const report = (fraction: number): void => onProgress?.((done + fraction * chunk.length) / squares.length);
      const outputs = await program.run({ image }, { signal, onProgress: onProgress && report });
      if (!outputs.finite[0]) {
        throw new ReflError(
          'ERR_WEIGHTS',
          `${this.path}: the model computed values that are not finite: its weights are unusable`,
        );
      }
      const pixels = outputs.image as Uint8Array;
      chunk.forEach(({ width, height }, i) => {
        restored.push({ width, height, data: pixels.subarray(i * bytes, (i + 1) * bytes) });
      });
    }
    return restored;
  }

  check(settings: Settings): void {
    checkSettings(this.path, settings, []);
  }

  notesOn(): string[] {
    return [];
  }

  private program(count: number): Promise<Program> {
    const known = this.programs.get(count);
    if (known) return known;
    const x = input('image', [count, this.size, this.size, 3], 'u8');
    const y = this.module.forward(affine(cast(x, 'f32'), 1 / 255));
    // A cast cuts the fraction off, so a half is added first.
    const image = cast(affine(clamp(y, 0, 1), 255, 0.5), 'u8');
    const compiling = this.device.compile(
      { outputs: { image, finite: allFinite([y]) } },
      { parameters: this.parameters },
    );
    this.programs.set(count, compiling);
    return compiling;
  }

  dispose(): void {
    for (const program of this.programs.values()) {
      program.then(
        (compiled) => compiled.dispose(),
        () => {},
      );
    }
    this.programs.clear();
    this.parameters.dispose();
  }
}

/**
 * The file of a one-step restorer, by its name or path, and the module that it describes. Throws ERR_OPTION on an unknown name;
 * ERR_FILE, or ERR_WEIGHTS on a file that is corrupt or holds another kind of model.
 */
export async function openOneStep(model: string): Promise<{ file: WeightsFile; module: OneStepRestorer }> {
  const file = await openSafetensors(pathOf(model));
  const { path, metadata, entries } = file;
  if (metadata.format !== FORMAT) {
    const found = metadata.format ? `its format is ${JSON.stringify(metadata.format)}` : 'it names no format';
    throw new ReflError('ERR_WEIGHTS', `${path}: this is no restorer (${found}): expected one of format "${FORMAT}"`);
  }
  return { file, module: construct(path, metadata.config, entries.size) };
}

function pathOf(model: string): string {
  const shipped = Object.hasOwn(shippedModels, model) ? shippedModels[model] : undefined;
  if (!shipped && !model.endsWith('.safetensors') && !existsSync(model)) {
    const names = Object.keys(shippedModels).join(', ');
    const others = 'a name that refl-native models lists, or the path of a .safetensors file';
    throw new ReflError('ERR_OPTION', `unknown model ${model}: expected ${names}, ${others}`);
  }
  return shipped ?? model;
}

/** Builds the module that a file's metadata describes; it may come from anyone, so it is held against the file's size first. */
function construct(path: string, json: string | undefined, tensors: number): OneStepRestorer {
  try {
    const config = JSON.parse(json ?? 'null') as OneStepConfig;
    const { channel_mult, num_res_blocks, transformer_depth = 1 } = config.unet;
    const blocks = Math.max(...[num_res_blocks].flat()) + 1;
    // Every residual block and every transformer holds several tensors.
    if (!(channel_mult.length * blocks * transformer_depth <= tensors))
      throw new Error('it has more layers than the file');
    const module = new OneStepRestorer(config);
    const { size, timestep } = config;
    if (!(size > 0 && size <= 4096 && size % module.multiple === 0))
      throw new Error(`it cannot restore squares of ${size}`);
    if (!(Number.isInteger(timestep) && timestep >= 0 && timestep < TRAIN_STEPS))
      throw new Error(`it has no timestep ${timestep}`);
    module.forward(input('image', [1, size, size, 3]));
    return module;
  } catch (cause) {
    throw new ReflError(
      'ERR_WEIGHTS',
      `${path}: the metadata key config describes no model: ${(cause as Error).message}`,
      { cause },
    );
  }
}

/** A NaN need not reach the pixels to spoil them, so the weights themselves are looked at, once. */
async function checkFinite(
  device: Device,
  parameters: Parameters,
  module: OneStepRestorer,
  path: string,
): Promise<void> {
  const bad: string[] = [];
  let batch: Record<string, Tensor> = {};
  let size = 0;
  const look = async (): Promise<void> => {
    using program = await device.compile({ outputs: batch }, { parameters });
    const finite = await program.run();
    bad.push(...Object.keys(finite).filter((key) => !finite[key][0]));
    batch = {};
    size = 0;
  };
  for (const [key, { value }] of module.namedParameters()) {
    batch[key] = allFinite([value]);
    size += value.size;
    // Looking at weights holds them in memory, all of a program's at once.
    if (size > 2 ** 24) await look();
  }
  await look();
  if (bad.length) {
    const more = bad.length > 3 ? ` and ${bad.length - 3} more` : '';
    throw new ReflError('ERR_WEIGHTS', `${path}: weights hold NaN or infinity: ${bad.slice(0, 3).join(', ')}${more}`);
  }
}
