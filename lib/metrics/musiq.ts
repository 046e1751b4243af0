import { affine } from '../graph/ops/elementwise.ts';
import { concat, pad, reshape, transpose } from '../graph/ops/layout.ts';
import { resize } from '../graph/ops/resample.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { MUSIQ, type MultiscalePatches } from '../models/musiq.ts';
import { roundEven } from '../numbers.ts';
import type { Parameters } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';

/** Pixels of the longer side of the first scales; the last is the picture as it is. */
const longerSides = [224, 384] as const;

/**
 * A picture at its three scales, cut into patches of 32 x 32 row by row, with zeros around it where they do not fill a patch (in
 * [-1, 1], so grey). Scales are made by the bicubic filter without antialiasing, as the PyTorch port does it whose weights
 * are in use; the original in TensorFlow has a Gaussian.
 *
 * The port fills the first two scales up to 49 and 144 patches, which its attention then leaves out: a batch could hold pictures
 * of several sizes. Here they are not made at all, so a batch holds pictures of one size, and the score is the same.
 *
 * @param x [N, H, W, 3] in [0, 1]
 */
export function multiscalePatches(x: Tensor): MultiscalePatches {
  const [, h, w] = x.shape;
  const signed = affine(x, 2, -1);
  const sizes = longerSides.map((side): [number, number] => {
    const ratio = side / Math.max(h, w);
    return [Math.max(1, roundEven(h * ratio)), Math.max(1, roundEven(w * ratio))];
  });
  const scales = [...sizes.map((size) => resize(signed, size, { mode: 'bicubic' })), signed].map(cut);
  const counts = scales.map(({ rows, columns }) => rows * columns);
  const whole = (numbers: number[]): Tensor => constant(Int32Array.from(numbers), [numbers.length], 'i32');
  return {
    patches: concat(
      scales.map(({ patches }) => patches),
      1,
    ),
    positions: whole(scales.flatMap(({ rows, columns }) => placesOf(rows, columns))),
    scales: whole(counts.flatMap((count, scale) => new Array<number>(count).fill(scale))),
  };
}

/** [N, H, W, 3] as [N, rows * columns, 32, 32, 3]; of the zeros the larger half comes after the picture. */
function cut(x: Tensor): { patches: Tensor; rows: number; columns: number } {
  const { patch } = MUSIQ;
  const [n, h, w, c] = x.shape;
  const [rows, columns] = [Math.ceil(h / patch), Math.ceil(w / patch)];
  const [down, across] = [rows * patch - h, columns * patch - w];
  const [top, left] = [down >> 1, across >> 1];
  const filled = pad(x, [0, top, left, 0], [0, down - top, across - left, 0]);
  const blocks = transpose(reshape(filled, [n, rows, patch, columns, patch, c]), [0, 1, 3, 2, 4, 5]);
  return { patches: reshape(blocks, [n, rows * columns, patch, patch, c]), rows, columns };
}

/** The place on the grid of each patch of a picture, in float32 as PyTorch's nearest-neighbour resize finds it. */
function placesOf(rows: number, columns: number): number[] {
  const { fround } = Math;
  const along = (count: number): number[] =>
    Array.from({ length: count }, (_, i) =>
      Math.min(MUSIQ.grid - 1, Math.floor(fround(i * fround(MUSIQ.grid / count)))),
    );
  const across = along(columns);
  return along(rows).flatMap((row) => across.map((column) => row * MUSIQ.grid + column));
}

/** MUSIQ's score of images [N, H, W, 3] in [0, 1]: [N], about 0 to 100. */
export const musiq = (network: MUSIQ, images: Tensor): Tensor => network.forward(multiscalePatches(images));

/** Loads pyiqa's `musiq_koniq_ckpt`, frozen; see {@link loadWeights}. */
export const loadMusiq = (parameters: Parameters, network: MUSIQ, file: WeightsFile): Promise<void> =>
  loadWeights(parameters, network, file, { frozen: true });
