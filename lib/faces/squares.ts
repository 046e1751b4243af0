// What the networks look at: parts of a photograph, made square and brought to their size.
import { cast } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import { constant, input } from '../graph/tensor.ts';
import { type Rgb, sharpOf } from '../image/picture.ts';
import { type Device, evaluate } from '../runtime/index.ts';
import type { Box } from './align.ts';
import { affinePositions, sample } from './warp.ts';

/** A part of a photograph made square with black. */
export interface Square {
  readonly image: Rgb;
  /** Its side, and the black before the part, in the photograph's pixels. */
  readonly side: number;
  readonly left: number;
  readonly top: number;
}

interface SquareOptions {
  /** Where the part lies in the square: at its left and top edge, or in its middle. */
  readonly place: 'start' | 'middle';
  /** Undoes some of a strong blur, about 0.03 of the part wide; a sharp picture stays recognisable. */
  readonly sharpened?: boolean;
  /** A larger part is shrunk to this side first. */
  readonly longest: number;
}

export async function squareOf(
  photograph: Rgb,
  box: Box,
  { place, sharpened = false, longest }: SquareOptions,
): Promise<Square> {
  const side = Math.max(box.width, box.height);
  const before = (extent: number): number => (place === 'start' ? 0 : side - extent - Math.round((side - extent) / 2));
  const [left, top] = [before(box.width), before(box.height)];
  let part = sharpOf(photograph).extract(box);
  const scale = Math.min(1, longest / side);
  if (scale < 1) {
    const [width, height] = [box.width, box.height].map((extent) => Math.max(1, Math.round(extent * scale)));
    part = part.resize(width, height, { fit: 'fill' });
  }
  const extent = Math.round(side * scale);
  if (sharpened)
    part = part.blur(Math.max(0.5, 0.008 * extent)).sharpen({ sigma: Math.max(0.5, 0.03 * extent), m1: 4, m2: 8 });
  const { data, info } = await part.raw().toBuffer({ resolveWithObject: true });
  const pads = { left: Math.round(left * scale), top: Math.round(top * scale) };
  const right = Math.max(0, extent - info.width - pads.left);
  const bottom = Math.max(0, extent - info.height - pads.top);
  const extended = sharpOf({ width: info.width, height: info.height, data }).extend({
    ...pads,
    right,
    bottom,
    background: 'black',
  });
  const raw = await extended.raw().toBuffer({ resolveWithObject: true });
  return { image: { width: raw.info.width, height: raw.info.height, data: raw.data }, side, left, top };
}

/** TensorFlow's bilinear resize as the networks were fed with: pixel i of the result is the image at i * side / size. */
export async function resample(device: Device, { data, width, height }: Rgb, size: number): Promise<Float32Array> {
  const image = cast(input('image', [height, width, 3], 'u8'), 'f32');
  const [sx, sy] = [width / size, height / size];
  const matrix = constant(Float32Array.of(sx, 0, 0.5 - sx / 2, 0, sy, 0.5 - sy / 2), [6], 'f32');
  const pixels = reshape(sample(image, affinePositions(matrix, [size, size]), 'bilinear'), [1, size, size, 3]);
  const { image: resampled } = await evaluate(device, { image: pixels }, { image: data });
  return resampled as Float32Array;
}

/** The photograph made smaller and sharpened, in the middle of a black canvas of its old size. */
export async function shrunken(photograph: Rgb, shrink: number): Promise<Rgb> {
  const part = boxWithin(photograph, shrink);
  const small = sharpOf(photograph)
    .resize(part.width, part.height, { fit: 'fill', kernel: 'cubic' })
    .sharpen({ sigma: 1.5 });
  const right = photograph.width - part.width - part.left;
  const bottom = photograph.height - part.height - part.top;
  const canvas = small.extend({ left: part.left, top: part.top, right, bottom, background: 'black' });
  return { width: photograph.width, height: photograph.height, data: await canvas.raw().toBuffer() };
}

/** Where {@link shrunken} puts the photograph. */
function boxWithin(photograph: Rgb, shrink: number): Box {
  const [width, height] = [photograph.width, photograph.height].map((extent) =>
    Math.max(1, Math.round(extent / shrink)),
  );
  return { left: (photograph.width - width) >> 1, top: (photograph.height - height) >> 1, width, height };
}

/** A box in what {@link shrunken} made, in the photograph itself. */
export function enlarged(box: Box, photograph: Rgb, shrink: number): Box {
  const place = boxWithin(photograph, shrink);
  const left = Math.max(0, (box.left - place.left) * shrink);
  const top = Math.max(0, (box.top - place.top) * shrink);
  const right = Math.min(photograph.width, (box.left + box.width - place.left) * shrink);
  const bottom = Math.min(photograph.height, (box.top + box.height - place.top) * shrink);
  return { left, top, width: Math.max(1, right - left), height: Math.max(1, bottom - top) };
}
