import { type GuideLoss, guideLosses } from '../diffusion/guidance.ts';
import type { SamplerName } from '../diffusion/samplers.ts';
import { ReflError } from '../errors.ts';
import type { Rgb } from '../image/picture.ts';
import type { RunOptions } from '../runtime/index.ts';

/** What can be chosen about how a model restores. Each model has its own defaults, and refuses what it has no use for. */
export interface Settings {
  /** What the pictures show. */
  readonly prompt?: string;
  /** What they should not show; of use where guidance is not 1. */
  readonly negativePrompt?: string;
  /** Denoising steps, from 1 to 1000. */
  readonly steps?: number;
  readonly sampler?: SamplerName;
  /** Scale of classifier-free guidance: 1 leaves it out, and halves the work. */
  readonly guidance?: number;
  /** Whether guidance grows from none at the noisy end, as DiffBIR's `rescale_cfg` has it. */
  readonly rescale?: boolean;
  /** How strongly the first stage's picture steers the second: 1 as trained. */
  readonly strength?: number;
  /** Whether sampling starts from noise alone, or from the first stage's picture under noise. */
  readonly start?: 'noise' | 'condition';
  /** From 0, all the detail that the model invents, to 1, none: the picture it was given, or the first stage's. */
  readonly fidelity?: number;
  /**
   * Scale of DiffBIR's restoration guidance, which pulls what each step decodes to towards the first stage's picture: 0, off, when left
   * out. It differentiates the decoder at every step that it takes part in.
   */
  readonly guideScale?: number;
  /** What that pull lessens: `w_mse` when left out, the mean square distance where the first stage's picture is flat, or `mse`, everywhere. */
  readonly guideLoss?: GuideLoss;
  /** Timesteps below which, and above which, steps are pulled: 1001 and -1, all of them, when left out. */
  readonly guideStart?: number;
  readonly guideStop?: number;
}

export type Setting = keyof Settings;

export interface ImageOptions extends RunOptions, Settings {
  /** Images that go through the model at once. */
  readonly batch: number;
  /** Of the noise that is drawn: the same for every image, whatever goes through the model beside it. */
  readonly seed: number;
  /** One an image, in place of `prompt`. */
  readonly prompts?: readonly (string | undefined)[];
}

/** A model that restores images on a device. */
export interface ImageModel {
  /** Side of the squares that faces are brought to. */
  readonly size: number;
  /** Whether it takes images of any size, and not only squares of that side. */
  readonly anySize: boolean;
  /** Throws ERR_OPTION on settings that it does not take, or that make no sense. */
  check(settings: Settings): void;
  /** Restores images, each at its own size. Throws as {@link check}, and ERR_WEIGHTS where it gives NaN or infinity. */
  restore(images: readonly Rgb[], options: ImageOptions): Promise<Rgb[]>;
  /** What the user should know about a prompt. */
  notesOn(prompt: string | undefined): string[];
  dispose(): void;
}

/** Every setting, for {@link checkSettings}. */
const all: Record<Setting, true> = {
  prompt: true,
  negativePrompt: true,
  steps: true,
  sampler: true,
  guidance: true,
  rescale: true,
  strength: true,
  start: true,
  fidelity: true,
  guideScale: true,
  guideLoss: true,
  guideStart: true,
  guideStop: true,
};

/** Throws ERR_OPTION on a setting that is given although a model does not take it, or on a number that makes no sense. */
export function checkSettings(model: string, settings: Settings, taken: readonly Setting[]): void {
  for (const name of Object.keys(all) as Setting[]) {
    if (settings[name] !== undefined && !taken.includes(name)) {
      const others = taken.length ? `it takes ${taken.join(', ')}` : 'it takes none of its kind';
      throw new ReflError('ERR_OPTION', `${model} has no use for ${name}: ${others}`);
    }
  }
  const { fidelity = 0, guidance = 1, strength = 1, start = 'noise' } = settings;
  const { guideScale = 0, guideLoss = 'w_mse', guideStart = 1001, guideStop = -1 } = settings;
  if (!(fidelity >= 0 && fidelity <= 1)) {
    throw new ReflError('ERR_OPTION', `fidelity must be a number from 0 to 1, got ${fidelity}`);
  }
  for (const [name, value] of Object.entries({ guidance, strength, guideScale })) {
    if (!(Number.isFinite(value) && value >= 0)) {
      throw new ReflError('ERR_OPTION', `${name} must be a number of at least 0, got ${value}`);
    }
  }
  if (!guideLosses.includes(guideLoss)) {
    throw new ReflError('ERR_OPTION', `guideLoss must be ${guideLosses.join(' or ')}, got ${guideLoss}`);
  }
  for (const [name, value] of Object.entries({ guideStart, guideStop })) {
    if (!Number.isFinite(value)) throw new ReflError('ERR_OPTION', `${name} must be a timestep, got ${value}`);
  }
  if (start !== 'noise' && start !== 'condition') {
    throw new ReflError('ERR_OPTION', `start must be noise or condition, got ${start}`);
  }
}
