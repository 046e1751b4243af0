import { ReflError } from '../errors.ts';
import { statisticsOf } from '../graph/dtype.ts';
import { crossEntropy, l2Normalize } from '../graph/ops/compose.ts';
import { cast, exp, mul } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import { matmul } from '../graph/ops/matmul.ts';
import { sum } from '../graph/ops/reduce.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { ForwardOptions } from '../models/blocks.ts';
import type { CLIP, TextTransformer } from '../models/clip.ts';

/** Features of length 1, in float32 at least: images [N, E], texts [P, E]. */
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
  images: l2Normalize(widened(clip.visual.forward(images, options))),
  texts: l2Normalize(widened(clip.pooled(ids, { ...options, dtype: images.dtype }))),
});

/** 16 bits would round away what good and better images differ by. */
const widened = (x: Tensor): Tensor => cast(x, statisticsOf(x.dtype));

/** The score of every image for every text, the cosine of their features: [N, P]. */
export const scores = ({ images, texts }: Features): Tensor => matmul(images, texts, { transposeB: true });

/**
 * The scores of each text's own images: [P, N / P]. Text p has rows p * N / P and on of the images; ERR_SHAPE where the
 * texts do not share the images evenly.
 */
export function pairedScores({ images, texts }: Features): Tensor {
  const [n, width] = images.shape;
  const prompts = texts.shape[0];
  if (n % prompts) throw new ReflError('ERR_SHAPE', `${n} images do not fall evenly to ${prompts} texts`);
  return sum(mul(reshape(images, [prompts, n / prompts, width]), reshape(texts, [prompts, 1, width])), [-1]);
}

/**
 * How badly scores predict which image of a text is preferred: cross entropy of their softmax, scaled by the model's own
 * factor, shape [].
 *
 * @param paired [P, K] of {@link pairedScores}
 * @param preferred the preferred image of each text, i32 [P]; or each image's share of the choices [P, K]
 */
export const preferenceLoss = (clip: CLIP, paired: Tensor, preferred: Tensor): Tensor =>
  crossEntropy(logits(clip, paired), preferred);

/** Scores times the factor of the model's softmax. */
export const logits = (clip: TextTransformer, cosines: Tensor): Tensor =>
  mul(cosines, exp(clip.logit_scale.beside(cosines)));
