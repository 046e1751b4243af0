import type { DType, TypedArray } from '../../../lib/graph/dtype.ts';
import { input } from '../../../lib/graph/tensor.ts';
import { CLIP } from '../../../lib/models/clip.ts';
import { ControlLDM } from '../../../lib/models/diffbir.ts';
import { LPIPS } from '../../../lib/models/lpips.ts';
import { type Module, withDType } from '../../../lib/nn/module.ts';
import { frmReward, type Judged } from '../../../lib/reward/reward.ts';
import type { Parameters } from '../../../lib/runtime/index.ts';
import { lpipsLoss, paperWeights, rewardLoss, type Weighted, waveletLoss } from '../../../lib/train/refl/objective.ts';
import { fromFloat32 } from '../../../lib/weights/half.ts';
import { smallLatent } from '../../support/latent.ts';
import { random } from '../../support/random.ts';

/** Sides of images and of latents. */
export const sides = { image: 16, latent: 8 };
export const tokens = 5;

export const numbers = (seed: number, size: number, dtype: DType = 'f32'): Float32Array | Float64Array => {
  const { next } = random(seed);
  const values = Array.from({ length: size }, () => 2 * next() - 1);
  return dtype === 'f64' ? Float64Array.from(values) : Float32Array.from(values);
};

/** Values everywhere, also where initialisers leave zeros, about as large as trained ones; what has some keeps them. */
export function fill(parameters: Parameters, module: Module, seed: number, frozen = false): void {
  for (const { value, init } of module.namedParameters().values()) {
    const spread = 1 / Math.sqrt(value.shape.slice(1).reduce((a, b) => a * b, 2));
    const around = init === 'ones' ? 1 : 0;
    const values = numbers(seed++, value.size, value.dtype).map((v) => around + spread * v) as Float32Array;
    const data = value.dtype === 'bf16' ? fromFloat32(values, 'BF16') : values;
    if (!parameters.has(value)) parameters.add(value, { data, frozen });
  }
}

/** The networks of a small DiffBIR and its judges, with parameters of `dtype`. */
export const networks = (dtype: DType) =>
  withDType(dtype, () => ({
    model: new ControlLDM({ ...smallLatent, controlnet: { ...smallLatent.unet, hint_channels: 2 } }),
    frozen: new ControlLDM({ ...smallLatent, controlnet: { ...smallLatent.unet, hint_channels: 2 } }).controlnet,
    lpips: new LPIPS({ vgg_channels: [4, 'M', 6] }),
    clip: new CLIP({
      embed_dim: 6,
      vision_cfg: { image_size: 8, patch_size: 4, width: 8, layers: 1, head_width: 4 },
      text_cfg: { context_length: tokens, vocab_size: 12, width: 8, heads: 2, layers: 1 },
    }),
  }));

export type Networks = ReturnType<typeof networks>;

/** The paper's three losses. */
export const terms = (
  { clip, lpips }: Pick<Networks, 'clip' | 'lpips'>,
  compute?: DType,
): Record<string, Weighted> => ({
  reward: { weight: paperWeights.reward, loss: rewardLoss(frmReward(clip, { compute })) },
  lpips: { weight: paperWeights.lpips, loss: lpipsLoss(lpips, compute) },
  wavelet: { weight: paperWeights.wavelet, loss: waveletLoss },
});

/** What images are judged beside, as feeds. */
export const judging = (n: number, dtype: DType): Omit<Judged, 'images'> => ({
  targets: input('targets', [n, sides.image, sides.image, 3], dtype),
  captions: input('captions', [n, tokens], 'i32'),
});

/** Values for {@link judging} of image `i`, for all runs the same. */
export const judgingFeeds = (i: number, dtype: DType): Record<string, TypedArray> => ({
  targets: numbers(100 + i, sides.image ** 2 * 3, dtype).map((v) => 0.5 + 0.5 * v) as TypedArray,
  captions: Int32Array.of(10, 1 + i, 2 + (i % 3), 11, 0),
});

/** Feeds of single images as those of one batch. */
export function batched(feeds: readonly Record<string, TypedArray>[]): Record<string, TypedArray> {
  const join = (key: string): TypedArray => {
    const parts = feeds.map((feed) => feed[key]);
    const Kind = parts[0].constructor as new (values: number[]) => TypedArray;
    return new Kind(parts.flatMap((part) => Array.from(part as ArrayLike<number>)));
  };
  return Object.fromEntries(Object.keys(feeds[0]).map((key) => [key, join(key)]));
}
