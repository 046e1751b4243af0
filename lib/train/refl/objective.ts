import { ReflError } from '../../errors.ts';
import type { DType } from '../../graph/dtype.ts';
import { grad } from '../../graph/grad.ts';
import { add, affine, cast, clamp, mul } from '../../graph/ops/elementwise.ts';
import { globalNorm } from '../../graph/ops/optim.ts';
import { mean } from '../../graph/ops/reduce.ts';
import { meanError } from '../../graph/ops/reward.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { dtcwtLoss } from '../../metrics/dtcwt.ts';
import type { LPIPS } from '../../models/lpips.ts';
import type { Judged, Reward } from '../../reward/reward.ts';

/** A loss of the restored images, []. */
export type ImageLoss = (judged: Judged) => Tensor;

/** 1 less the mean reward. */
export const rewardLoss =
  (reward: Reward): ImageLoss =>
  (judged) =>
    affine(mean(reward.score(judged)), -1, 1);

/** LPIPS distances to the photographs, [N]; `compute` is what its network computes in, if not in the images' dtype. */
export const lpipsDistance =
  (lpips: LPIPS, compute?: DType) =>
  ({ images, targets }: Judged): Tensor => {
    const [a, b] = [images, targets].map((x) => (compute ? cast(x, compute) : x));
    return lpips.forward(a, b, { normalize: true }).distance;
  };

/** Their mean. */
export const lpipsLoss = (lpips: LPIPS, compute?: DType): ImageLoss => {
  const distance = lpipsDistance(lpips, compute);
  return (judged) => mean(distance(judged));
};

/** What differs in the low-pass of the dual-tree wavelet transform, where images count as they are seen: within [0, 1]. */
export const waveletLoss: ImageLoss = ({ images, targets }) => dtcwtLoss(clamp(images, 0, 1), targets);

/** A loss that has a weight, 0 to watch it without training by it. */
export interface Weighted {
  readonly weight: number;
  readonly loss: ImageLoss;
}

/** Features, or weights, that should stay what a frozen copy of the restorer computes, and that copy's, which are constants to the gradient. */
export interface Drift {
  readonly weight: number;
  /** A factor of the weight that changes from run to run, []. */
  readonly strength?: Tensor;
  readonly pairs: readonly (readonly [own: Tensor, frozen: Tensor])[];
}

/** DiffusionReward's weights: of the images' losses, and of what regularises DiffBIR's control features and OSEDiff's predictions. */
export const paperWeights = {
  reward: 0.005,
  lpips: 0.01,
  wavelet: 0.01,
  drift: { diffbir: 1e-4, osediff: 1 },
} as const;

export interface Objective {
  /** Values of the losses by name, unweighted, and of the weighted sum as `total`; each []. */
  readonly losses: Readonly<Record<string, Tensor>>;
  /** Norms of the weighted losses' gradients where they meet: at the images, or at the features that drift; each [1]. */
  readonly norms: Readonly<Record<string, Tensor>>;
  /** Gradients of the sum by `weights`. */
  gradients(weights: readonly Tensor[]): Tensor[];
}

/**
 * What DiffusionReward minimises (Wu et al. 2025, formula 7): weighted losses of the restored images and the drift from
 * a frozen copy. Each loss is differentiated down to the images alone, which gives its share of the pull; the sum of those
 * then takes one way through the decoder and the network. Throws ERR_OPTION where nothing has a weight.
 */
export function objective(judged: Judged, terms: Readonly<Record<string, Weighted>>, drift?: Drift): Objective {
  const losses: Record<string, Tensor> = {};
  const norms: Record<string, Tensor> = {};
  const weighted: Tensor[] = [];
  const pulls: Tensor[] = [];
  for (const [name, { weight, loss }] of Object.entries(terms)) {
    losses[name] = loss(judged);
    if (!weight) continue;
    const [pull] = grad(affine(losses[name], weight), [judged.images]);
    weighted.push(affine(losses[name], weight));
    norms[name] = globalNorm([pull]);
    pulls.push(pull);
  }
  const roots: Tensor[] = pulls.length ? [judged.images] : [];
  const cotangents: Tensor[] = pulls.length ? [pulls.reduce(add)] : [];
  if (drift) {
    const own = drift.pairs.map(([feature]) => feature);
    losses.drift = meanError(drift.pairs);
    const plain = affine(losses.drift, drift.weight);
    const total = drift.strength ? mul(plain, drift.strength) : plain;
    const pull = grad(total, own);
    weighted.push(total);
    norms.drift = globalNorm(pull);
    roots.push(...own);
    cotangents.push(...pull);
  }
  if (!weighted.length) throw new ReflError('ERR_OPTION', 'no loss has a weight: there is nothing to train by');
  losses.total = weighted.reduce(add);
  return { losses, norms, gradients: (weights) => grad(roots, weights, cotangents) };
}
