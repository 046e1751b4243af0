import { affine, cast } from '../graph/ops/elementwise.ts';
import { linear } from '../graph/ops/matmul.ts';
import { resize } from '../graph/ops/resample.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { ResNetFace } from '../models/arcface.ts';
import type { Parameters } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import { renamed } from '../weights/rename.ts';
import { wholeLevels } from './levels.ts';

/** Shares of red, green and blue in grey (ITU-R BT.601). */
const luma = Float32Array.of(0.299, 0.587, 0.114);

/**
 * Faces as the identity metric of VQFR and its successors takes them: grey, brought to 128 x 128 without antialiasing, each step
 * rounded to 8 bits, then (x - 127.5) / 127.5. OpenCV's own rounding differs by a level at times. Because of the rounding no
 * gradient passes.
 *
 * @param x [N, H, W, 3] in [0, 1], aligned faces as they were restored
 * @returns [N, 128, 128, 1] in [-1, 1]
 */
export function identityPreprocess(x: Tensor): Tensor {
  const grey = wholeLevels(linear(wholeLevels(affine(x, 255)), cast(constant(luma, [1, 3], 'f32'), x.dtype)));
  const small = resize(grey, [ResNetFace.size, ResNetFace.size], { mode: 'bilinear' });
  return greyFaces(wholeLevels(small));
}

/** Grey levels 0 to 255 as {@link ResNetFace} takes them. */
export const greyFaces = (levels: Tensor): Tensor => affine(levels, 1 / 127.5, -1);

/**
 * The angle in degrees of a cosine, which rounding may have carried out of [-1, 1]. Of two faces' embeddings papers report the
 * angle as Deg, others the cosine as IDS.
 */
export const degrees = (cosine: number): number => (Math.acos(Math.max(-1, Math.min(1, cosine))) * 180) / Math.PI;

/** Loads the network from arcface-pytorch's `resnet18_110.pth`, frozen; see {@link loadWeights}. */
export const loadIdentity = (parameters: Parameters, network: ResNetFace, file: WeightsFile): Promise<void> =>
  loadWeights(
    parameters,
    network,
    renamed(file, (key) => key.replace(/^module\./, '')),
    { frozen: true },
  );
