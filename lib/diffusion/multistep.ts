import { type Level, type Prediction, type Step, stepsThrough } from './steps.ts';

/** Half the logarithm of the signal-to-noise ratio at cumulative alpha `alpha`. */
const lambda = (alpha: number): number => 0.5 * (Math.log(alpha) - Math.log1p(-alpha));

/**
 * DPM-Solver++(2M) (Lu et al. 2022, algorithm 2) through `levels`. The first step has nothing before it and is of first order,
 * and so is the last of fewer than 10, which steadies it.
 */
export function dpmPlusPlus2mSteps(levels: readonly Level[], prediction: Prediction): Step[] {
  const count = levels.length - 1;
  return stepsThrough(levels, prediction, (from, to, i) => {
    const h = lambda(to) - lambda(from);
    const state = Math.sqrt((1 - to) / (1 - from));
    const gain = -Math.sqrt(to) * Math.expm1(-h);
    if (i === 0 || (i === count - 1 && count < 10)) return [state, gain, 0, 0, 0];
    const slope = (gain * h) / (2 * (lambda(from) - lambda(levels[i - 1].alpha)));
    return [state, gain + slope, 0, -slope, 0];
  });
}

/**
 * DPM-Solver++(3M) SDE as k-diffusion has it, through `levels`, the last of which has no noise: an exponential integrator that
 * extrapolates the clean latent in lambda by up to three estimates. As in DPM-Solver's own code the second difference counts
 * half of what the integral of the parabola would give it. `eta` scales the noise: 0 adds none.
 */
export const dpmPlusPlus3mSdeSteps = (levels: readonly Level[], prediction: Prediction, eta = 1): Step[] =>
  stepsThrough(levels, prediction, (from, to, i) => {
    if (to === 1) return [0, 1, 0, 0, 0];
    const before = (k: number): number => lambda(levels[i - k].alpha);
    const h = lambda(to) - lambda(from);
    const decay = h * (eta + 1);
    const scale = Math.sqrt(to);
    const state = Math.sqrt(to / from) * Math.exp(-decay);
    const gain = -Math.expm1(-decay);
    const noise = Math.sqrt((1 - to) * -Math.expm1(-2 * h * eta));
    const phi2 = Math.expm1(-decay) / decay + 1;
    if (i === 0) return [state, scale * gain, noise, 0, 0];
    const r0 = (before(0) - before(1)) / h;
    if (i === 1) {
      const slope = phi2 / r0;
      return [state, scale * (gain + slope), noise, -scale * slope, 0];
    }
    const r1 = (before(1) - before(2)) / h;
    // Divided differences: u = (D - D1) / r0 and w = (D1 - D2) / r1 make the first derivative
    // u + (u - w) r0 / (r0 + r1) and the second (u - w) / (r0 + r1).
    const curve = (phi2 * r0 - (phi2 / decay - 0.5)) / (r0 + r1);
    const [u, w] = [(phi2 + curve) / r0, -curve / r1];
    return [state, scale * (gain + u), noise, scale * (w - u), -scale * w];
  });

/**
 * The levels of DPM-Solver on a table of cumulative alphas: `count` + 1 times evenly spaced from the table's last entry
 * to its first, between whole timesteps where they fall there, with logarithms of alpha interpolated. Entries whose lambda is
 * under -5.1 are cut off first, as the original does for schedules that end without signal, and the times stretched over the rest.
 */
export function continuousLevels(alphas: Float64Array, count: number): Level[] {
  const kept = alphas.findIndex((alpha) => lambda(alpha) < -5.1);
  const last = (kept < 0 ? alphas.length : kept) - 1;
  return Array.from({ length: count + 1 }, (_, i) => {
    const place = last * (1 - i / count);
    const below = Math.min(Math.floor(place), last - 1);
    const share = place - below;
    const logAlpha = (1 - share) * Math.log(alphas[below]) + share * Math.log(alphas[below + 1]);
    return { timestep: (place * 1000) / (last + 1), alpha: Math.exp(logAlpha) };
  });
}
