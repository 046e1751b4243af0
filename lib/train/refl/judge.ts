import { grad } from '../../graph/grad.ts';
import { affine, sub } from '../../graph/ops/elementwise.ts';
import { concat, reshape, split } from '../../graph/ops/layout.ts';
import { mean } from '../../graph/ops/reduce.ts';
import { constant, input, type Tensor } from '../../graph/tensor.ts';
import type { CLIP } from '../../models/clip.ts';
import { features, pairedScores, preferenceLoss } from '../../reward/hps.ts';
import { diffusionRewardPreprocess } from '../../reward/preprocess.ts';
import type { BatchGraph } from '../learner.ts';
import { narrowed, type Precision } from './restored.ts';

export interface JudgeGraph extends Precision {
  /** Images a batch, and their side. */
  readonly batch: number;
  readonly side: number;
  /** Factor of the loss: 0.1 in DiffusionReward. */
  readonly weight: number;
  readonly antialias?: boolean;
  readonly recompute?: boolean;
}

/**
 * How a face reward model goes on learning while a restorer trains by it (DiffusionReward): that the photograph is preferred to
 * what the restorer made of it. Where the restorer found a way to please it without getting closer, it stops being pleased.
 *
 * Feeds: `restored` and `targets` [batch, side, side, 3], `captions` i32 [batch, L]. Outputs: the `loss`, unweighted, and by how
 * much higher the photographs score, the `margin`.
 *
 * @param weights of `clip`, to differentiate by
 */
export function judgeGraph(
  clip: CLIP,
  weights: readonly Tensor[],
  { batch, side, weight, antialias, recompute, compute }: JudgeGraph,
): BatchGraph {
  const images = (name: string): Tensor => input(name, [batch, 1, side, side, 3]);
  // Two rows a caption: what was restored, then the photograph, which is preferred.
  const pairs = reshape(concat([images('restored'), images('targets')], 1), [2 * batch, side, side, 3]);
  const captions = input('captions', [batch, clip.positional_embedding.value.shape[0]], 'i32');
  const [size] = clip.visual.imageSize;
  const small = diffusionRewardPreprocess(affine(pairs, 2, -1), { size, antialias });
  const paired = pairedScores(features(clip, narrowed(small, { compute }), captions, { recompute }));
  const preferred = constant(new Int32Array(batch).fill(1), [batch], 'i32');
  const loss = preferenceLoss(clip, paired, preferred);
  const [restored, targets] = split(paired, 2, 1);
  return { outputs: { loss, margin: mean(sub(targets, restored)) }, gradients: grad(affine(loss, weight), weights) };
}
