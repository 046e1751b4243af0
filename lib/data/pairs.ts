import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { ReflError } from '../errors.ts';
import { decodeImage, middleOf, type Rgb } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import { type DegradeRanges, Degrader, defaultRanges, drawDegradation } from './degrade.ts';
import { Draws } from './draws.ts';

/** Where a trainer gets its batches. Batch number `step` is the same whenever it is asked for. */
export interface PairSource {
  /** Side of the square crops. */
  readonly size: number;
  /** Says which pictures it draws from: a run goes on only with the same. */
  readonly digest?: string;
  batch(step: number, count: number): Promise<Pairs>;
}

export interface Pairs {
  /** Degraded crops and their clean originals, each float32 [count, size, size, 3] in [0, 1]. */
  readonly degraded: Float32Array;
  readonly clean: Float32Array;
  /** Which picture each crop is from, where that is known. */
  readonly pictures?: readonly number[];
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
  /** Whether crops are the middles of the pictures as they are, where aligned faces are whole. */
  readonly centred?: boolean;
}

/** A picture in memory, and where it came from. */
interface Read extends Rgb {
  readonly path: string;
}

const pictures = /\.(png|jpe?g|webp|tiff?)$/i;

/** Random crops of the pictures in some folders, varied in scale, side and light, degraded anew every time. */
export class FolderPairs implements PairSource {
  readonly size: number;
  readonly digest: string;
  /** Of the pictures, in the order of their numbers. */
  readonly paths: readonly string[];
  private readonly sets: { weight: number; images: Read[] }[];
  private readonly degrader: Degrader;
  private readonly options: PairOptions;

  private constructor(device: Device, sets: { weight: number; images: Read[] }[], options: PairOptions) {
    this.size = options.size;
    this.digest = digestOf(sets);
    this.paths = sets.flatMap(({ images }) => images.map(({ path }) => path));
    this.sets = sets;
    this.degrader = new Degrader(device);
    this.options = options;
  }

  /** Reads all pictures into memory. Throws ERR_FILE on a folder without any, ERR_IMAGE on one that is broken or smaller than `size`. */
  static async open(device: Device, sources: readonly Source[], options: PairOptions): Promise<FolderPairs> {
    const sets = await Promise.all(
      sources.map(async ({ folder, weight }) => ({ weight, images: await readFolder(folder, options.size) })),
    );
    return new FolderPairs(device, sets, options);
  }

  async batch(step: number, count: number): Promise<Required<Pairs>> {
    const values = this.size * this.size * 3;
    const degraded = new Float32Array(count * values);
    const clean = new Float32Array(count * values);
    const pictures = await Promise.all(
      Array.from({ length: count }, async (_, i) => {
        const draws = new Draws(this.options.seed, step, i);
        const picture = this.pick(draws);
        const crop = await this.crop(picture, draws);
        const { image } = await this.degrader.degrade(
          crop,
          drawDegradation(draws, this.options.ranges ?? defaultRanges),
        );
        degraded.set(image, i * values);
        clean.set(
          Float32Array.from(crop.data, (v) => v / 255),
          i * values,
        );
        return this.paths.indexOf(picture.path);
      }),
    );
    return { degraded, clean, pictures };
  }

  /**
   * A square of the picture, as large as the crop or (at even odds) larger and reduced to it, so that features come in many
   * sizes but never softer than they were photographed; mirrored at even odds; mostly in another light.
   */
  private async crop({ data, width, height }: Rgb, draws: Draws): Promise<Rgb> {
    const { size } = this;
    if (this.options.centred) return middleOf({ data, width, height }, size);
    const zoom = draws.uniform() < 0.5 ? 1 : (Math.min(width, height) / size) ** draws.uniform();
    const side = Math.round(size * zoom);
    const [left, top] = [draws.below(width - side + 1), draws.below(height - side + 1)];
    const picture = sharp(data, { raw: { width, height, channels: 3 } })
      .extract({ left, top, width: side, height: side })
      .resize(size, size)
      .flop(draws.uniform() < 0.5);
    if (draws.uniform() < 0.7) relight(picture, draws);
    return { data: await picture.raw().toBuffer(), width: size, height: size };
  }

  private pick(draws: Draws): Read {
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

/** Another exposure, another white balance, more or less colour: a few people in few lights stand for many. */
function relight(picture: Sharp, draws: Draws): void {
  const exposure = draws.uniform(-0.35, 0.25);
  const gains = [0, 1, 2].map(() => Math.exp(exposure + draws.uniform(-0.15, 0.15)));
  const saturation = draws.uniform() < 0.1 ? 0 : draws.uniform(0.5, 1.3);
  picture.linear(gains, [0, 0, 0]).modulate({ saturation });
}

/** Of all pixels, in order, and of how often each set is drawn from. */
function digestOf(sets: readonly { weight: number; images: readonly Rgb[] }[]): string {
  const hash = createHash('sha256');
  for (const { weight, images } of sets) {
    hash.update(JSON.stringify([weight, images.map(({ width, height }) => [width, height])]));
    for (const { data } of images) hash.update(data);
  }
  return hash.digest('hex');
}

/** All pictures of a folder. Throws ERR_IMAGE for the first that cannot be used, with how many others there are. */
async function readFolder(folder: string, size: number): Promise<Read[]> {
  const names = (await readdir(folder).catch(() => [])).filter((name) => pictures.test(name)).sort();
  if (!names.length) throw new ReflError('ERR_FILE', `${folder}: no pictures there`);
  const read = await Promise.allSettled(names.map((name) => readPicture(join(folder, name), size)));
  const failures = read.flatMap((outcome) => (outcome.status === 'rejected' ? [outcome.reason] : []));
  if (failures.length > 1) {
    const others = `${failures.length - 1} more of ${names.length} pictures cannot be used either`;
    throw new ReflError(failures[0].code, `${failures[0].message}; ${others}`, { cause: failures[0] });
  }
  if (failures.length) throw failures[0];
  return read.map((outcome) => (outcome as PromiseFulfilledResult<Read>).value);
}

async function readPicture(path: string, size: number): Promise<Read> {
  const { data, width, height } = await decodeImage(path);
  if (width < size || height < size) {
    throw new ReflError('ERR_IMAGE', `${path} is ${width}x${height}: crops of ${size} do not fit`);
  }
  return { path, data, width, height };
}
