import { ReflError } from '../errors.ts';
import { reshape, slice } from '../graph/ops/layout.ts';
import { mean } from '../graph/ops/reduce.ts';
import { cosines } from '../graph/ops/reward.ts';
import { softmax } from '../graph/ops/softmax.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import type { ClipResNet } from '../models/clip_resnet.ts';
import { logits } from '../reward/hps.ts';
import { normalizeColours } from '../reward/preprocess.ts';
import type { Parameters } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import { renamed } from '../weights/rename.ts';

/** The five pairs of opposite prompts of CLIPIQA, good before bad, with the tokens that CLIP's vocabulary has for each. */
const prompts: readonly [prompt: string, tokens: readonly number[]][] = [
  ['Good image', [886, 2867]],
  ['bad image', [2103, 2867]],
  ['Sharp image', [8157, 2867]],
  ['blurry image', [21977, 2867]],
  ['sharp edges', [8157, 20938]],
  ['blurry edges', [21977, 20938]],
  ['High resolution image', [1400, 9977, 2867]],
  ['low resolution image', [1042, 9977, 2867]],
  ['Noise-free image', [9307, 268, 1139, 2867]],
  ['noisy image', [33495, 2867]],
];
const [start, end] = [49406, 49407];

/** The tokens of all prompts, i32 [10, length]. */
export function promptTokens(length = 77): Int32Array {
  const ids = new Int32Array(prompts.length * length);
  prompts.forEach(([, tokens], i) => {
    ids.set([start, ...tokens, end], i * length);
  });
  return ids;
}

/** The prompts' features, [10, embed_dim], which no picture changes. */
export function promptFeatures(clip: ClipResNet): Tensor {
  const length = clip.positional_embedding.value.shape[0];
  return clip.pooled(constant(promptTokens(length), [prompts.length, length], 'i32'));
}

/**
 * How good a picture is in the words of CLIP (CLIPIQA, Wang et al. 2023): the mean over the pairs of prompts of the chance that
 * the good one fits better.
 *
 * @param images [N, H, W, 3] in [0, 1], at their own size
 * @param texts {@link promptFeatures}
 * @returns [N], from 0 to 1
 */
export function clipiqa(clip: ClipResNet, images: Tensor, texts: Tensor): Tensor {
  return pairChance(clip, clip.visual.forward(normalizeColours(images)), texts).score;
}

/** The score of picture features [N, embed_dim], [N], and the logits behind it, [N, 10]. */
export function pairChance(clip: ClipResNet, features: Tensor, texts: Tensor): { score: Tensor; logits: Tensor } {
  const [n] = features.shape;
  const scaled = logits(clip, cosines(features, texts));
  const chances = softmax(reshape(scaled, [n, prompts.length / 2, 2]));
  const good = slice(chances, [0, 0, 0], [n, prompts.length / 2, 1]);
  return { score: mean(good, [1, 2]), logits: scaled };
}

/** What OpenAI's files hold besides weights, and the positions that {@link ClipResNet} leaves out. */
const aside = /^(input_resolution|context_length|vocab_size|visual\.attnpool\.positional_embedding)$/;

/** Loads OpenAI's RN50, frozen; see {@link loadWeights}. Throws ERR_WEIGHTS for CLIP on a transformer. */
export async function loadClipiqa(parameters: Parameters, clip: ClipResNet, file: WeightsFile): Promise<void> {
  if (file.entries.has('visual.class_embedding')) {
    throw new ReflError('ERR_WEIGHTS', `${file.path} holds a CLIP on a vision transformer: CLIPIQA is defined on RN50`);
  }
  const view = renamed(file, (key) => (aside.test(key) ? undefined : key));
  await loadWeights(parameters, clip, view, { frozen: true });
}
