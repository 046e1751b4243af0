import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import { ReflError } from '../errors.ts';
import type { Rgb } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import { type DegradeRanges, Degrader, defaultRanges, drawDegradation } from './degrade.ts';
import { Draws } from './draws.ts';

/** Where a trainer gets its batches. Batch number `step` is the same whenever it is asked for. */
export interface PairSource {
  /** Side of the square crops. */
  readonly size: number;
  /** `count` degraded crops and their clean originals, each float32 [count, size, size, 3] in [0, 1]. */
  batch(step: number, count: number): Promise<{ degraded: Float32Array; clean: Float32Array }>;
}

/** A folder of pictures, and how often it is drawn from relative to the others. */
export interface Source {
  readonly folder: string;
  readonly weight: number;
}

export interface PairOptions {
  readonly size: number;
  readonly seed: number;
  readonly ranges?: DegradeRanges;
}

const pictures = /\.(png|jpe?g|webp|tiff?)$/i;

/** Random crops of the pictures in some folders, mirrored at even odds, degraded anew every time. */
export class FolderPairs implements PairSource {
  readonly size: number;
  private readonly sets: { weight: number; images: Rgb[] }[];
  private readonly degrader: Degrader;
  private readonly options: PairOptions;

  private constructor(device: Device, sets: { weight: number; images: Rgb[] }[], options: PairOptions) {
    this.size = options.size;
    this.sets = sets;
    this.degrader = new Degrader(device);
    this.options = options;
  }

  /** Reads all pictures into memory. Throws ERR_FILE on a folder without any, ERR_IMAGE on one smaller than `size`. */
  static async open(device: Device, sources: readonly Source[], options: PairOptions): Promise<FolderPairs> {
    const sets = await Promise.all(
      sources.map(async ({ folder, weight }) => ({ weight, images: await readFolder(folder, options.size) })),
    );
    return new FolderPairs(device, sets, options);
  }

  async batch(step: number, count: number): Promise<{ degraded: Float32Array; clean: Float32Array }> {
    const values = this.size * this.size * 3;
    const degraded = new Float32Array(count * values);
    const clean = new Float32Array(count * values);
    await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const draws = new Draws(this.options.seed, step, i);
        const crop = this.crop(draws);
        const { image } = await this.degrader.degrade(
          crop,
          drawDegradation(draws, this.options.ranges ?? defaultRanges),
        );
        degraded.set(image, i * values);
        clean.set(
          Float32Array.from(crop.data, (v) => v / 255),
          i * values,
        );
      }),
    );
    return { degraded, clean };
  }

  private crop(draws: Draws): Rgb {
    const { data, width, height } = this.pick(draws);
    const { size } = this;
    const [left, top] = [draws.below(width - size + 1), draws.below(height - size + 1)];
    const mirrored = draws.uniform() < 0.5;
    const crop = new Uint8Array(size * size * 3);
    for (let y = 0; y < size; y++) {
      const row = ((top + y) * width + left) * 3;
      if (!mirrored) crop.set(data.subarray(row, row + size * 3), y * size * 3);
      else {
        for (let x = 0; x < size; x++) {
          const from = row + (size - 1 - x) * 3;
          crop.set(data.subarray(from, from + 3), (y * size + x) * 3);
        }
      }
    }
    return { data: crop, width: size, height: size };
  }

  private pick(draws: Draws): Rgb {
    const total = this.sets.reduce((sum, { weight }) => sum + weight, 0);
    const point = draws.uniform(0, total);
    let end = 0;
    const set = this.sets.find(({ weight }) => {
      end += weight;
      return point < end;
    })!;
    return set.images[draws.below(set.images.length)];
  }

  dispose(): void {
    this.degrader.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

async function readFolder(folder: string, size: number): Promise<Rgb[]> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => pictures.test(name)).sort();
  if (!names.length) throw new ReflError('ERR_FILE', `${folder}: no pictures there`);
  return Promise.all(
    names.map(async (name) => {
      const { data, info } = await sharp(join(folder, name))
        .rotate()
        .removeAlpha()
        .toColourspace('srgb')
        .raw()
        .toBuffer({ resolveWithObject: true });
      if (info.width < size || info.height < size) {
        throw new ReflError(
          'ERR_IMAGE',
          `${join(folder, name)} is ${info.width}x${info.height}: crops of ${size} do not fit`,
        );
      }
      return { data, width: info.width, height: info.height };
    }),
  );
}
