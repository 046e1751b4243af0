import { abs, add, affine, div, mul, square, sub } from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import { reshape, split } from '../graph/ops/layout.ts';
import { mean } from '../graph/ops/reduce.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { cleanWeights, type Prediction } from './steps.ts';

/** Two weights an image, [N, 2], looked up in a table of what they are at each timestep. */
const weightsAt = (table: readonly (readonly [number, number])[], timesteps: Tensor): Tensor =>
  embedding(constant(Float32Array.from(table.flat()), [table.length, 2], 'f32'), timesteps);

/**
 * The noisy latents sqrt(a_t) x + sqrt(1 - a_t) noise (Ho et al. 2020, formula 4).
 * @param x,noise [N, ...]; @param timesteps i32 [N]; @param alphas cumulative alphas
 */
export function addNoise(x: Tensor, noise: Tensor, timesteps: Tensor, alphas: Float64Array): Tensor {
  const table = Array.from(alphas, (a) => [Math.sqrt(a), Math.sqrt(1 - a)] as const);
  return rowSum(weightsAt(table, timesteps), [x, noise]);
}

/** What a network that predicts v learns for clean latents `x` under `noise`: sqrt(a_t) noise - sqrt(1 - a_t) x. Arguments as of {@link addNoise}. */
export function velocity(x: Tensor, noise: Tensor, timesteps: Tensor, alphas: Float64Array): Tensor {
  const table = Array.from(alphas, (a) => [Math.sqrt(a), -Math.sqrt(1 - a)] as const);
  return rowSum(weightsAt(table, timesteps), [noise, x]);
}

/** The clean latents that a network's `output` for noisy latents `x` [N, ...] speaks of, at i32 [N] timesteps. */
export function predictClean(
  x: Tensor,
  output: Tensor,
  timesteps: Tensor,
  alphas: Float64Array,
  prediction: Prediction,
): Tensor {
  const table = Array.from(alphas, (a) => cleanWeights(a, prediction));
  return rowSum(weightsAt(table, timesteps), [x, output]);
}

/** Classifier-free guidance (Ho & Salimans 2022): from what a network predicts without the prompt, `scale` times as far as to what it predicts with it. */
export const guided = (conditional: Tensor, unconditional: Tensor, scale: Tensor | number): Tensor =>
  add(unconditional, mul(scale, sub(conditional, unconditional)));

/** The sum of tensors of one shape, each times an entry of `weights` [k]. */
export const weightedSum = (weights: Tensor, tensors: readonly Tensor[]): Tensor =>
  split(weights, tensors.length, 0)
    .map((w, i) => mul(w, tensors[i]))
    .reduce(add);

/** The sum of tensors [N, ...], each times a column of `weights` [N, k]: another weight for every image. */
export function rowSum(weights: Tensor, tensors: readonly Tensor[]): Tensor {
  const [n] = weights.shape;
  return split(weights, tensors.length, 1)
    .map((w, i) => mul(reshape(w, [n, ...Array(tensors[i].rank - 1).fill(1)]), tensors[i]))
    .reduce(add);
}

/** A loss whose gradient is not that of its formula: it is handed to `grad` as the cotangent of what it is taken by. */
export interface Distilled {
  /** The value to report, []. */
  readonly loss: Tensor;
  /** The gradient by the latents, of their shape. */
  readonly gradient: Tensor;
}

/**
 * OSEDiff's distribution matching in latent space: latents move from where the network that follows the restorer sees their clean
 * state to where the frozen one sees it, in steps measured by how far they are from the latter, per image. As a loss, the mean square
 * of latents - stopgrad(latents - direction).
 *
 * @param latents [N, ...]; @param update,fixed clean latents seen by the network that follows and by the frozen one
 */
export function distributionMatching(latents: Tensor, update: Tensor, fixed: Tensor): Distilled {
  const axes = latents.shape.map((_, i) => i).slice(1);
  const direction = div(sub(update, fixed), mean(abs(sub(latents, fixed)), axes, true));
  return { loss: mean(square(direction)), gradient: affine(direction, 2 / latents.size) };
}
