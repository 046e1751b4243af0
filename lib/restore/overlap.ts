import { add, mul } from '../graph/ops/elementwise.ts';
import { input } from '../graph/tensor.ts';
import type { RunOptions } from '../runtime/index.ts';
import { type ImageShape, makePlane, type Plane, type Region } from './plane.ts';
import type { Stages } from './stages.ts';

/** Squares that cover an image and lie one over the other. */
export interface Windows {
  readonly size: number;
  /** From one to the next; the last one ends with the image. */
  readonly stride: number;
}

/** Where windows begin along an axis of `length`, which is at least their size. */
export function windowStarts(length: number, { size, stride }: Windows): number[] {
  const count = Math.ceil((length - size) / stride) + 1;
  return Array.from({ length: count }, (_, i) => Math.min(i * stride, length - size));
}

/** Variance of the bell that windows are weighted with, in units of their size squared (MultiDiffusion, Bar-Tal et al. 2023). */
const variance = 0.01;

/** For each window along an axis, the part that it has in each of its positions: all together 1 everywhere. */
export function sharesOf(length: number, starts: readonly number[], size: number): Float32Array[] {
  const bell = Array.from({ length: size }, (_, i) => Math.exp(-(((i - (size - 1) / 2) / size) ** 2) / (2 * variance)));
  const sums = new Float64Array(length);
  for (const start of starts) for (const [i, w] of bell.entries()) sums[start + i] += w;
  return starts.map((start) => Float32Array.from(bell, (w, i) => w / sums[start + i]));
}

export interface OverlapOptions extends RunOptions {
  readonly windows: Windows;
  /** The values of a region of the result, [N, height, width, C]. */
  readonly each: (region: Region) => Promise<Float32Array>;
}

/** Images of `shape` put together from windows, each weighted with a bell around its middle, so that no border shows. */
export async function overlapped(
  stages: Stages,
  shape: ImageShape,
  { windows, each, signal, onProgress }: OverlapOptions,
): Promise<Plane> {
  const [n, height, width, channels] = shape;
  const { size } = windows;
  const [tops, lefts] = [windowStarts(height, windows), windowStarts(width, windows)];
  const [downwards, across] = [sharesOf(height, tops, size), sharesOf(width, lefts, size)];
  const tile = [n, size, size, channels];
  const trace = () => {
    const weights = mul(input('down', [size, 1, 1]), input('across', [size, 1]));
    return { y: add(input('sum', tile), mul(input('tile', tile), weights)) };
  };
  const plane = await makePlane(shape);
  try {
    for (const [i, top] of tops.entries()) {
      for (const [j, left] of lefts.entries()) {
        const region = { top, left, height: size, width: size };
        const feeds = {
          tile: await each(region),
          sum: await plane.read(region),
          down: downwards[i],
          across: across[j],
        };
        const { y } = await stages.run(`overlap ${tile.join('x')}`, trace, feeds, { signal });
        await plane.write(region, y as Float32Array);
        onProgress?.((i * lefts.length + j + 1) / (tops.length * lefts.length));
      }
    }
    return plane;
  } catch (error) {
    await plane.dispose();
    throw error;
  }
}
