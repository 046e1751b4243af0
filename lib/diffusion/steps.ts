/** What a denoising network predicts of x_t = sqrt(a_t) x_0 + sqrt(1 - a_t) e: the noise e, or v = sqrt(a_t) e - sqrt(1 - a_t) x_0. */
export type Prediction = 'eps' | 'v';

/**
 * One step of a sampler, as numbers. Whatever its derivation, a step reads the network's output once and ends in two
 * weighted sums: of the state x and the output, which estimates the clean latent, and of the state, that estimate, fresh
 * noise and the estimates of the two steps before, which is the next state. States have the scale of the training noise schedule.
 */
export interface Step {
  /** What the network is told; some samplers fall between whole timesteps. */
  readonly timestep: number;
  /** Weights of [x, output]. */
  readonly clean: readonly [number, number];
  /** Weights of [x, clean, noise, the clean estimate before, the one before that]. */
  readonly next: readonly [number, number, number, number, number];
}

/** A noise level: the network's name for it and its cumulative alpha. */
export interface Level {
  readonly timestep: number;
  readonly alpha: number;
}

/** The levels of `timesteps` in a table of cumulative alphas. */
export const levelsOf = (alphas: Float64Array, timesteps: readonly number[]): Level[] =>
  timesteps.map((timestep) => ({ timestep, alpha: alphas[timestep] }));

/** A level without noise. */
export const clean: Level = { timestep: 0, alpha: 1 };

/** Weights of [x, output] that give the clean latent at cumulative alpha `alpha`. */
export function cleanWeights(alpha: number, prediction: Prediction): [number, number] {
  const [signal, noise] = [Math.sqrt(alpha), Math.sqrt(1 - alpha)];
  return prediction === 'v' ? [signal, -noise] : [1 / signal, -noise / signal];
}

/** A step at every level but the last, where they end: `next` says how the i-th leads from cumulative alpha `from` to `to`. */
export function stepsThrough(
  levels: readonly Level[],
  prediction: Prediction,
  next: (from: number, to: number, i: number) => Step['next'],
): Step[] {
  return levels.slice(0, -1).map(({ timestep, alpha }, i) => ({
    timestep,
    clean: cleanWeights(alpha, prediction),
    next: next(alpha, levels[i + 1].alpha, i),
  }));
}

/**
 * DDIM (Song et al. 2021, formulas 12 and 16) through `levels`. An `eta` of 0 adds no noise, 1 as much as DDPM; it may be one number a
 * step, as DiffusionReward's rollouts draw them. With an eta of 0 this is Euler's method on the probability flow too (Karras
 * et al. 2022, algorithm 1, without churn), for in the scale of its sigmas that flow is a straight line between two levels.
 */
export const ddimSteps = (
  levels: readonly Level[],
  prediction: Prediction,
  eta: number | readonly number[] = 0,
): Step[] =>
  stepsThrough(levels, prediction, (from, to, i) => {
    const fresh = (typeof eta === 'number' ? eta : eta[i]) * ddimDeviation(from, to);
    const kept = Math.sqrt((1 - to - fresh ** 2) / (1 - from));
    return [kept, Math.sqrt(to) - kept * Math.sqrt(from), fresh, 0, 0];
  });

/** Deviation of the noise that DDIM adds from cumulative alpha `from` to `to` at an eta of 1. */
export const ddimDeviation = (from: number, to: number): number => Math.sqrt(((1 - to) / (1 - from)) * (1 - from / to));

/** The posterior q(next | x, x_0) of DDPM from cumulative alpha `from` to `to` (Ho et al. 2020, formula 7): weights of its mean, and its variance. */
export function posterior(from: number, to: number): { clean: number; state: number; variance: number } {
  const beta = 1 - from / to;
  return {
    clean: (beta * Math.sqrt(to)) / (1 - from),
    state: ((1 - to) * Math.sqrt(from / to)) / (1 - from),
    variance: (beta * (1 - to)) / (1 - from),
  };
}

/** DDPM through `levels`, each step with its posterior's variance; none where the last level has no noise. */
export const spacedSteps = (levels: readonly Level[], prediction: Prediction): Step[] =>
  stepsThrough(levels, prediction, (from, to) => {
    const { clean, state, variance } = posterior(from, to);
    return [state, clean, Math.sqrt(variance), 0, 0];
  });
