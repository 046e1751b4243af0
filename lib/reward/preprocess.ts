import { ReflError } from '../errors.ts';
import { add, affine, cast, clamp, div, sub } from '../graph/ops/elementwise.ts';
import { pad } from '../graph/ops/layout.ts';
import { type ResizeMode, resize } from '../graph/ops/resample.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { roundEven } from '../numbers.ts';

/** Mean and deviation of the colours, in [0, 1], that CLIP was trained on. */
const mean = [0.48145466, 0.4578275, 0.40821073];
const deviation = [0.26862954, 0.26130258, 0.27577711];

/** Images [N, H, W, 3] in [0, 1] as CLIP's towers take them: less the mean colour, over the deviation. */
export function normalizeColours(x: Tensor): Tensor {
  const colours = (values: number[]): Tensor => cast(constant(Float32Array.from(values), [3], 'f32'), x.dtype);
  return div(sub(x, colours(mean)), colours(deviation));
}

/**
 * How the bicubic filter treats an image that shrinks. `antialias` widens it by the ratio, as torchvision does from 0.17 on;
 * `plain` does not, as before, and skips pixels; `pil` is Pillow's own resize: widened, with each of its two passes rounded to
 * 8 bits, and so without a gradient.
 */
export type Resampling = 'plain' | 'antialias' | 'pil';

/**
 * The official preprocessing of HPS v2: the longer side becomes `size`, the shorter keeps the ratio, and black fills the
 * square, an odd pixel of it right or below; then {@link normalizeColours}. An image whose longer side has that size
 * already is only normalised, so it stays as narrow as it is: {@link padToSquare} mends that.
 *
 * @param x [N, H, W, 3] in [0, 1]
 */
export function hpsPreprocess(
  x: Tensor,
  { size = 224, resampling = 'antialias' }: { size?: number; resampling?: Resampling } = {},
): Tensor {
  const resized = resizeLonger(x, size, resampling);
  return normalizeColours(resized === x ? x : padToSquare(resized, size));
}

/** Images whose longer side becomes `size`, and the shorter one its share, rounded as Python does; not clamped. */
export function resizeLonger(x: Tensor, size: number, resampling: Resampling): Tensor {
  const [, h, w] = x.shape;
  const scale = size / Math.max(h, w);
  if (scale === 1) return x;
  const [height, width] = [roundEven(h * scale), roundEven(w * scale)];
  if (!height || !width) throw new ReflError('ERR_SHAPE', `an image of ${h}x${w} has no pixels left at ${size}`);
  if (resampling === 'pil') return pillowResize(x, [height, width]);
  return resize(x, [height, width], { mode: 'bicubic', antialias: resampling === 'antialias' });
}

/** Zeros around images, the odd one right or below, so that both sides are `size`. */
export function padToSquare(x: Tensor, size: number): Tensor {
  const [, h, w] = x.shape;
  const [top, left] = [(size - h) >> 1, (size - w) >> 1];
  return pad(x, [0, top, left, 0], [0, size - h - top, size - w - left, 0]);
}

/**
 * DiffusionReward's own preprocessing: limited to [0, 1], the shorter side made `size`, normalised.
 *
 * @param x [N, H, W, 3] in [-1, 1], as decoders make them; squares, since CLIP takes nothing else
 * @param options.antialias what torchvision's Resize does from 0.17 on; off is what the published code, pinned to 0.15.2, ran
 */
export function diffusionRewardPreprocess(
  x: Tensor,
  { size = 224, antialias = true, mode = 'bilinear' }: { size?: number; antialias?: boolean; mode?: ResizeMode } = {},
): Tensor {
  return normalizeColours(resizeShorter(clamp(affine(x, 0.5, 0.5), 0, 1), size, { mode, antialias }));
}

/** torchvision's Resize with one number: the shorter side becomes `size`, the longer its share, rounded down. */
export function resizeShorter(x: Tensor, size: number, options: { mode: ResizeMode; antialias?: boolean }): Tensor {
  const [, h, w] = x.shape;
  const longer = Math.trunc((size * Math.max(h, w)) / Math.min(h, w));
  return resize(x, h < w ? [size, longer] : [longer, size], options);
}

/** Across, then down, each pass rounded to whole levels of 255. */
function pillowResize(x: Tensor, [height, width]: readonly [number, number]): Tensor {
  const filter = { mode: 'bicubic', antialias: true } as const;
  const levels = (y: Tensor): Tensor => cast(cast(add(clamp(y, 0, 255), 0.5), 'i32'), x.dtype);
  const across = levels(resize(affine(x, 255), [x.shape[1], width], filter));
  return affine(levels(resize(across, [height, width], filter)), 1 / 255);
}
