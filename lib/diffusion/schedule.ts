import { ReflError } from '../errors.ts';
import { roundEven } from '../numbers.ts';

/** Steps of the training noise schedule of Stable Diffusion. */
export const TRAIN_STEPS = 1000;

/**
 * Cumulative products of (1 - beta) for Stable Diffusion's scaled-linear schedule: betas are the squares of numbers evenly
 * spaced from sqrt(0.00085) to sqrt(0.012). Float64; entry t belongs to timestep t.
 */
export function alphasCumprod(steps = TRAIN_STEPS): Float64Array {
  const first = Math.sqrt(0.00085);
  const last = Math.sqrt(0.012);
  const products = new Float64Array(steps);
  let product = 1;
  for (let t = 0; t < steps; t++) {
    const root = first + ((last - first) * t) / (steps - 1);
    product *= 1 - root * root;
    products[t] = product;
  }
  return products;
}

/**
 * The same schedule with no signal left at its last step: square roots of `alphas` shifted and stretched so that the last
 * is 0 and the first stays (Lin et al. 2023, "Common diffusion noise schedules and sample steps are flawed", algorithm 1). For
 * networks that predict v, such as DiffBIR v2.1's.
 */
export function zeroTerminalSnr(alphas: Float64Array): Float64Array {
  const first = Math.sqrt(alphas[0]);
  const last = Math.sqrt(alphas[alphas.length - 1]);
  return alphas.map((a) => (((Math.sqrt(a) - last) * first) / (first - last)) ** 2);
}

/** Throws ERR_OPTION unless `count` is a number of steps that the schedule can be walked in. */
function checkSteps(count: number): void {
  if (!Number.isInteger(count) || count < 1 || count > TRAIN_STEPS) {
    throw new ReflError(
      'ERR_OPTION',
      `the number of steps must be a whole number from 1 to ${TRAIN_STEPS}, got ${count}`,
    );
  }
}

/**
 * `count` timesteps from 0 to 999, as evenly as whole numbers go, ascending: those of a respaced DDPM (guided-diffusion's
 * `space_timesteps`). One step is the last one, for it starts from noise.
 */
export function evenTimesteps(count: number): number[] {
  checkSteps(count);
  if (count === 1) return [TRAIN_STEPS - 1];
  const stride = (TRAIN_STEPS - 1) / (count - 1);
  const timesteps: number[] = [];
  // Added up, not multiplied: some sums lie on a half, and their last bit decides which way the original rounds.
  for (let t = 0; timesteps.length < count; t += stride) timesteps.push(roundEven(t));
  return timesteps;
}

/**
 * The timesteps of DDIM, ascending: every floor(1000 / count)-th from 1 on. As in the original code there are more of them than
 * `count` where that does not divide 1000; one that falls behind the table is left out. One step is the last one.
 */
export function leadingTimesteps(count: number): number[] {
  checkSteps(count);
  if (count === 1) return [TRAIN_STEPS - 1];
  const stride = Math.floor(TRAIN_STEPS / count);
  const all = Array.from({ length: Math.ceil(TRAIN_STEPS / stride) }, (_, i) => i * stride + 1);
  return all.filter((t) => t < TRAIN_STEPS);
}

/** The timesteps of DiffBIR's EDM samplers, descending: from 999 evenly towards 0, which is left out, rounded down. */
export function trailingTimesteps(count: number): number[] {
  checkSteps(count);
  const stride = -(TRAIN_STEPS - 1) / count;
  return Array.from({ length: count }, (_, i) => Math.floor(i * stride + TRAIN_STEPS - 1));
}
