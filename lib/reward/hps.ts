import { ReflError } from '../errors.ts';
import { exp, mul } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import { cosines, crossEntropy } from '../graph/ops/reward.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { ForwardOptions } from '../models/blocks.ts';
import type { CLIP, TextTransformer } from '../models/clip.ts';

/** Images [N, E] and texts [P, E], of any length, in what the towers compute in. */
export interface Features {
  images: Tensor;
  texts: Tensor;
}

/**
 * What HPS and FaceRewardModel compare.
 *
 * @param images [N, H, W, 3] of the model's size, preprocessed (./preprocess.ts); both towers compute in their dtype
 * @param ids tokens of the texts, i32 [P, context length]
 */
export const features = (clip: CLIP, images: Tensor, ids: Tensor, options: ForwardOptions = {}): Features => ({
  images: clip.visual.forward(images, options),
  texts: clip.pooled(ids, { ...options, dtype: images.dtype }),
});

/** The score of every image for every text, the cosine of their features: [N, P], in float32 at least. */
export const scores = ({ images, texts }: Features): Tensor => cosines(images, texts);

/**
 * The scores of each text's own images: [P, N / P], in float32 at least. Text p has rows p * N / P and on of the images; ERR_SHAPE where the
 * texts do not share the images evenly.
 */
export function pairedScores({ images, texts }: Features): Tensor {
  const [n, width] = images.shape;
  const prompts = texts.shape[0];
  if (n % prompts) throw new ReflError('ERR_SHAPE', `${n} images do not fall evenly to ${prompts} texts`);
  const apart = cosines(reshape(images, [prompts, n / prompts, width]), reshape(texts, [prompts, 1, width]));
  return reshape(apart, [prompts, n / prompts]);
}

/**
 * How badly scores predict which image of a text is preferred: cross entropy of their softmax, scaled by the model's own
 * factor, shape [].
 *
 * @param paired [P, K] of {@link pairedScores}
 * @param preferred the preferred image of each text, i32 [P]; or each image's share of the choices [P, K]
 */
export const preferenceLoss = (clip: CLIP, paired: Tensor, preferred: Tensor): Tensor =>
  crossEntropy(paired, preferred, clip.logit_scale.value);

/** Scores times the factor of the model's softmax. */
export const logits = (clip: TextTransformer, cosines: Tensor): Tensor =>
  mul(cosines, exp(clip.logit_scale.beside(cosines)));
