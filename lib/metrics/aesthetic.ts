import { ReflError } from '../errors.ts';
import { l2Normalize } from '../graph/ops/compose.ts';
import { reshape, slice } from '../graph/ops/layout.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { AestheticPredictor } from '../models/aesthetic.ts';
import type { VisionTransformer } from '../models/clip.ts';
import { roundEven } from '../numbers.ts';
import { normalizeColours, resizeShorter } from '../reward/preprocess.ts';
import type { Parameters } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';

/** The image tower of CLIP ViT-L/14 and what is trained on its features. */
export interface AestheticNetworks {
  readonly visual: VisionTransformer;
  readonly predictor: AestheticPredictor;
}

/**
 * Images as CLIP takes them: the shorter side becomes 224 (bicubic, antialiased), the middle square is kept, and colours are
 * normalised.
 *
 * @param x [N, H, W, 3] in [0, 1]
 */
export function clipPreprocess(x: Tensor, size = 224): Tensor {
  const resized = resizeShorter(x, size, { mode: 'bicubic', antialias: true });
  const [n, h, w, c] = resized.shape;
  const first = (extent: number): number => roundEven((extent - size) / 2);
  return normalizeColours(slice(resized, [0, first(h), first(w), 0], [n, size, size, c]));
}

/** LAION's aesthetic score of image features [N, 768], which count by their direction: [N]. */
export const aestheticOf = ({ predictor }: AestheticNetworks, features: Tensor): Tensor =>
  reshape(predictor.forward(l2Normalize(features)), [features.shape[0]]);

/**
 * LAION's aesthetic score (improved-aesthetic-predictor, `sac+logos+ava1-l14-linearMSE`).
 *
 * @param images [N, H, W, 3] in [0, 1]
 * @returns [N], about 1 to 10
 */
export const aesthetic = (networks: AestheticNetworks, images: Tensor): Tensor =>
  aestheticOf(networks, networks.visual.forward(clipPreprocess(images)));

/**
 * Loads both networks, frozen, from CLIP ViT-L/14's file (of which the text tower is left aside) and the predictor's, in
 * either order. Throws ERR_WEIGHTS where one of them is missing, and for all that {@link loadWeights} refuses.
 */
export async function loadAesthetic(
  parameters: Parameters,
  { visual, predictor }: AestheticNetworks,
  files: readonly WeightsFile[],
): Promise<void> {
  const clip = files.find(({ entries }) => entries.has('visual.class_embedding'));
  const head = files.find(({ entries }) => entries.has('layers.7.weight'));
  if (!clip || !head) {
    const names = files.map(({ path }) => path).join(', ') || 'no file';
    const what = clip ? "the predictor's layers (sac+logos+ava1-l14-linearMSE)" : "CLIP ViT-L/14's image tower";
    throw new ReflError('ERR_WEIGHTS', `${names}: missing ${what}`);
  }
  await loadWeights(parameters, visual, clip, { prefix: 'visual.', frozen: true });
  await loadWeights(parameters, predictor, head, { frozen: true });
}
