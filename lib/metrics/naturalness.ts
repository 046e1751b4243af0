import { ReflError } from '../errors.ts';
import { cast } from '../graph/ops/elementwise.ts';
import { resize } from '../graph/ops/resample.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import { type Device, evaluate } from '../runtime/index.ts';
import { readArrays } from '../weights/arrays.ts';
import { type BlockMoments, blockMoments, niqeFeatures, studioLuma } from './niqe.ts';
import { fitNormal, type Normal } from './normal.ts';

/** Blocks this much sharper than others count, of the sharpest of their picture. */
const sharp = 0.75;

/** What is measured of a picture of 8 bits [1, H, W, 3]. */
export const naturalMoments = (picture: Tensor): BlockMoments => blockMoments(studioLuma(picture));

/**
 * Statistics of natural pictures from photographs, as those of NIQE were made: each photograph is halved, which takes its
 * compression and its lens's blur away, and blocks count that are at least three quarters as sharp as its sharpest.
 */
export async function fitNaturalness(device: Device, photographs: readonly Rgb[]): Promise<Normal> {
  const rows: Float64Array[] = [];
  for (const { width, height, data } of photographs) {
    const bytes = input('bytes', [1, height, width, 3], 'u8');
    const half = [Math.floor(height / 2), Math.floor(width / 2)] as const;
    const small = resize(cast(bytes, 'f32'), half, { mode: 'bicubic', antialias: true });
    const { full, half: at, sharpness } = await evaluate(device, { ...naturalMoments(small) }, { bytes: data });
    const most = Math.max(...sharpness);
    rows.push(...niqeFeatures({ full, half: at }).filter((_, i) => sharpness[i] > sharp * most));
  }
  return fitNormal(rows);
}

/** Names of the mean and the covariance in our file, in BasicSR's and in the original one. */
const names = [
  ['mean', 'covariance'],
  ['mu_pris_param', 'cov_pris_param'],
  ['mu_prisparam', 'cov_prisparam'],
];

/**
 * Reads statistics of natural pictures, 36 means and 36 x 36 covariances, from safetensors, NumPy's .npz or MATLAB's .mat. Throws
 * ERR_WEIGHTS where they are not there.
 */
export async function readNaturalness(path: string): Promise<Normal> {
  const arrays = await readArrays(path);
  const found = names.find((pair) => pair.every((name) => arrays.has(name)));
  if (!found) {
    throw new ReflError('ERR_WEIGHTS', `${path}: it holds no ${names.map((pair) => pair.join(' and ')).join(', or ')}`);
  }
  const [mean, covariance] = found.map((name) => arrays.get(name)!.values);
  if (mean.length !== 36 || covariance.length !== 36 * 36) {
    throw new ReflError(
      'ERR_WEIGHTS',
      `${path}: ${mean.length} means and ${covariance.length} covariances are not of 36`,
    );
  }
  return { mean, covariance };
}
