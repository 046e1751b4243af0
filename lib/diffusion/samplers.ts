import { ReflError } from '../errors.ts';
import { continuousLevels, dpmPlusPlus2mSteps, dpmPlusPlus3mSdeSteps } from './multistep.ts';
import { evenTimesteps, leadingTimesteps, trailingTimesteps } from './schedule.ts';
import { clean, ddimSteps, type Level, levelsOf, type Prediction, type Step, spacedSteps } from './steps.ts';

/** What a sampler is made for. */
export interface SamplerOptions {
  /** Cumulative alphas of the training schedule. */
  readonly alphas: Float64Array;
  readonly prediction: Prediction;
  /** From 1 to 1000. */
  readonly steps: number;
  /** Noise added along the way, where the sampler has that choice: of DDIM 0 unless given, of DPM++ 3M SDE 1. */
  readonly eta?: number;
}

type Sampler = (options: SamplerOptions) => Step[];

const descending = (timesteps: readonly number[]): number[] => [...timesteps].reverse();

/** DiffBIR gives the first level of its EDM samplers a signal of 1e-4: it divides by it. */
function edmLevels({ alphas, steps }: SamplerOptions): Level[] {
  const [first, ...others] = levelsOf(alphas, trailingTimesteps(steps));
  return [{ ...first, alpha: 1e-8 }, ...others, clean];
}

/** Samplers by DiffBIR's names. */
export const samplers = {
  /** DDPM on evenly spaced timesteps. */
  spaced: ({ alphas, prediction, steps }) =>
    spacedSteps([...levelsOf(alphas, descending(evenTimesteps(steps))), clean], prediction),
  ddim: ({ alphas, prediction, steps, eta }) =>
    ddimSteps(levelsOf(alphas, [...descending(leadingTimesteps(steps)), 0]), prediction, eta),
  'dpm++_m2': ({ alphas, prediction, steps }) => dpmPlusPlus2mSteps(continuousLevels(alphas, steps), prediction),
  edm_euler: (options) => ddimSteps(edmLevels(options), options.prediction),
  'edm_dpm++_3m_sde': (options) => dpmPlusPlus3mSdeSteps(edmLevels(options), options.prediction, options.eta),
} satisfies Record<string, Sampler>;

export type SamplerName = keyof typeof samplers;

/**
 * The steps of the sampler `name`, first one first. Throws ERR_OPTION for a name or a number of steps that does not exist, and
 * for a network that predicts noise on a schedule that ends in nothing but noise, from which it cannot tell the image.
 */
export function samplerSteps(name: string, options: SamplerOptions): Step[] {
  if (!Object.hasOwn(samplers, name)) {
    throw new ReflError('ERR_OPTION', `there is no sampler ${name}; there are ${Object.keys(samplers).join(', ')}`);
  }
  const steps: Step[] = (samplers[name as SamplerName] as Sampler)(options);
  if (!steps.every((step) => [...step.clean, ...step.next].every(Number.isFinite))) {
    throw new ReflError(
      'ERR_OPTION',
      `${name} cannot start where no signal is left with a network that predicts noise`,
    );
  }
  return steps;
}

/**
 * The scale of classifier-free guidance at a timestep, where `scale` grows from none at the noisy end as DiffBIR's
 * `rescale_cfg` has it: 1 + scale (1 - cos(pi ((1000 - t) / 1000)^5)) / 2.
 */
export const rescaledGuidance = (scale: number, timestep: number): number =>
  1 + (scale * (1 - Math.cos(Math.PI * ((1000 - timestep) / 1000) ** 5))) / 2;
