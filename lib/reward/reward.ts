import type { DType } from '../graph/dtype.ts';
import { affine, cast } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { ForwardOptions } from '../models/blocks.ts';
import type { CLIP } from '../models/clip.ts';
import { features, pairedScores } from './hps.ts';
import { diffusionRewardPreprocess } from './preprocess.ts';

/** What a restored image is judged beside. */
export interface Judged {
  /** Restored images [N, H, W, 3], about [0, 1], as the decoder makes them. */
  readonly images: Tensor;
  /** The photographs they should be, [N, H, W, 3] in [0, 1]. */
  readonly targets: Tensor;
  /** The tokens of a caption an image, i32 [N, L]. */
  readonly captions: Tensor;
}

/**
 * A judge to train restorers by: any function of the graph that has a derivative by the images. Several may be used at once, each
 * with its weight.
 */
export interface Reward {
  /** How good each image is, [N]: the higher the better, 1 at best. What the trainer minimises is the mean of 1 less it. */
  score(judged: Judged): Tensor;
}

/**
 * The face reward model as a judge: the cosine of image and caption, without the softmax's factor (DiffusionReward).
 *
 * @param options.antialias off as the published code ran; see {@link diffusionRewardPreprocess}
 * @param options.compute what the towers compute in, if not in the images' dtype
 */
export const frmReward = (
  clip: CLIP,
  { compute, antialias, ...options }: { antialias?: boolean; compute?: DType } & ForwardOptions = {},
): Reward => ({
  score({ images, captions }) {
    const [size] = clip.visual.imageSize;
    const small = diffusionRewardPreprocess(affine(images, 2, -1), { size, antialias });
    const seen = features(clip, compute ? cast(small, compute) : small, captions, options);
    return cast(reshape(pairedScores(seen), [images.shape[0]]), images.dtype);
  },
});
