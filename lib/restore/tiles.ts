import { setImmediate } from 'node:timers/promises';
import sharp, { type OverlayOptions } from 'sharp';
import { resized } from '../image/fit.ts';
import { type Rgb, sharpOf } from '../image/picture.ts';
import type { Plan } from './plan.ts';

/** The part of a tile's side that it shares with the next one at least: there one fades into the other. */
const OVERLAP = 1 / 4;

/** The picture at its own resolution, cut into overlapping squares; a picture that is smaller is continued by its border. */
export async function planTiles(picture: Rgb, size: number): Promise<Plan> {
  const { width, height } = picture;
  const canvas = await enlarge(picture, Math.max(width, size), Math.max(height, size));
  const [lefts, tops] = [starts(canvas.width, size), starts(canvas.height, size)];
  const crops: Rgb[] = [];
  for (const top of tops) {
    crops.push(...lefts.map((left) => cut(canvas, left, top, size, size)));
    // Thousands of tiles would hold the event loop.
    await setImmediate();
  }
  return {
    crops,
    faces: 0,
    notes: [],
    compose: async (restored) => {
      const rows: Rgb[] = [];
      for (const [i] of tops.entries())
        rows.push(await join(restored.slice(i * lefts.length, (i + 1) * lefts.length), lefts, 'x'));
      return cut(await join(rows, tops, 'y'), 0, 0, width, height);
    },
  };
}

/** All of the picture at once, for a model that takes any size: enlarged first where its shorter side is under `size`. */
export async function planWhole(picture: Rgb, size: number): Promise<Plan> {
  const { width, height } = picture;
  const scale = Math.max(1, size / Math.min(width, height));
  const crop = await resized(picture, Math.round(width * scale), Math.round(height * scale));
  return { crops: [crop], faces: 0, notes: [], compose: ([restored]) => resized(restored, width, height) };
}

/** Where squares of `size` begin that cover `length` evenly, each sharing at least {@link OVERLAP} with the next. */
export function starts(length: number, size: number): number[] {
  const steps = Math.ceil((length - size) / (size * (1 - OVERLAP)));
  return Array.from({ length: steps + 1 }, (_, i) => (steps ? Math.round((i * (length - size)) / steps) : 0));
}

async function enlarge(picture: Rgb, width: number, height: number): Promise<Rgb> {
  if (picture.width === width && picture.height === height) return picture;
  const [right, bottom] = [width - picture.width, height - picture.height];
  return { width, height, data: await sharpOf(picture).extend({ right, bottom, extendWith: 'copy' }).raw().toBuffer() };
}

function cut(
  { data, width: stride, height: rows }: Rgb,
  left: number,
  top: number,
  width: number,
  height: number,
): Rgb {
  if (width === stride && height === rows) return { data, width, height };
  const part = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const from = ((top + y) * stride + left) * 3;
    part.set(data.subarray(from, from + width * 3), y * width * 3);
  }
  return { data: part, width, height };
}

/**
 * Lays images side by side (x) or one below the other (y), beginning at `at`, in this order. Where one overlaps the one before,
 * its opacity rises linearly, so that both together are a crossfade.
 */
async function join(images: readonly Rgb[], at: readonly number[], axis: 'x' | 'y'): Promise<Rgb> {
  const [first] = images;
  const end = at.at(-1)! + (axis === 'x' ? first.width : first.height);
  const [width, height] = axis === 'x' ? [end, first.height] : [first.width, end];
  const length = axis === 'x' ? first.width : first.height;
  const layers = images.slice(1).map(async (image, i): Promise<OverlayOptions> => {
    const alpha = ramp(image, at[i] + length - at[i + 1], axis);
    const raw = { width: image.width, height: image.height, channels: 1 } as const;
    const input = await sharpOf(image).joinChannel(alpha, { raw }).raw().toBuffer();
    return {
      input,
      raw: { ...raw, channels: 4 },
      left: axis === 'x' ? at[i + 1] : 0,
      top: axis === 'x' ? 0 : at[i + 1],
    };
  });
  const base = await sharpOf(first)
    .extend({ right: width - first.width, bottom: height - first.height })
    .raw()
    .toBuffer();
  const joined = sharp(base, { raw: { width, height, channels: 3 } }).composite(await Promise.all(layers));
  return { width, height, data: await joined.removeAlpha().raw().toBuffer() };
}

/** Opacity of an image: rising over its first `overlap` columns (x) or rows (y), full beyond. */
function ramp({ width, height }: Rgb, overlap: number, axis: 'x' | 'y'): Buffer {
  const level = (i: number): number => Math.min(255, Math.round((255 * (i + 0.5)) / overlap));
  const alpha = Buffer.alloc(width * height);
  if (axis === 'y') for (let y = 0; y < height; y++) alpha.fill(level(y), y * width, (y + 1) * width);
  else {
    const row = Uint8Array.from({ length: width }, (_, x) => level(x));
    for (let y = 0; y < height; y++) alpha.set(row, y * width);
  }
  return alpha;
}
