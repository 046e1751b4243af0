import { affine } from '../graph/ops/elementwise.ts';
import { concat, slice } from '../graph/ops/layout.ts';
import { resize } from '../graph/ops/resample.ts';
import type { Tensor } from '../graph/tensor.ts';
import { MANIQA } from '../models/maniqa.ts';
import type { Parameters } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import { renamed } from '../weights/rename.ts';

/**
 * Where pyiqa's uniform crops begin: [top, left] of `count` squares of 224 pixels, row by row. The last ones of the last
 * row are left out where `count` is no square, and steps are rounded down, so that crops need not reach the far edges.
 */
export function cropPlaces([h, w]: readonly [number, number], count: number): [top: number, left: number][] {
  const [few, many] = [Math.floor(Math.sqrt(count)), Math.ceil(Math.sqrt(count))];
  const [down, across] = [h, w].map((size) => Math.floor((size - MANIQA.size) / few));
  return Array.from({ length: count }, (_, i) => [Math.floor(i / many) * down, (i % many) * across]);
}

/**
 * A picture as pyiqa gives it to MANIQA: `count` crops, which lie the same way every time (early versions drew them at random).
 * A picture of less than 224 pixels a side is made as large first, by the bilinear filter.
 *
 * @param x [1, H, W, 3] in [0, 1]
 * @returns [count, 224, 224, 3] in [-1, 1]
 */
export function maniqaCrops(x: Tensor, count = 20): Tensor {
  const { size } = MANIQA;
  const scale = Math.max(1, size / Math.min(x.shape[1], x.shape[2]));
  const [h, w] = [x.shape[1], x.shape[2]].map((extent) => Math.max(size, Math.floor(extent * scale)));
  const whole = affine(resize(x, [h, w], { mode: 'bilinear' }), 2, -1);
  const crops = cropPlaces([h, w], count).map(([top, left]) => slice(whole, [0, top, left, 0], [1, size, size, 3]));
  return concat(crops, 0);
}

/** What official files hold beyond the networks' part in use: the end of the vision transformer, and halvings never made. */
const aside = /^(vit\.(blocks\.1[01]\.|norm\.|head\.|fc_norm\.)|swintransformer[12]\.downsample\.)/;

/** Loads MANIQA's `ckpt_koniq10k.pt` or pyiqa's files, frozen; see {@link loadWeights}. */
export const loadManiqa = (parameters: Parameters, network: MANIQA, file: WeightsFile): Promise<void> =>
  loadWeights(
    parameters,
    network,
    renamed(file, (key) => {
      const own = key.replace(/^module\./, '');
      return aside.test(own) ? undefined : own;
    }),
    { frozen: true },
  );
