import { setImmediate } from 'node:timers/promises';
import { weightedSum } from '../diffusion/denoise.ts';
import { NoiseSource, Sampling, type SamplingOptions } from '../diffusion/sampling.ts';
import { ReflError } from '../errors.ts';
import type { TypedArray } from '../graph/dtype.ts';
import { affine, cast, clamp } from '../graph/ops/elementwise.ts';
import { type PadMode, pad, slice } from '../graph/ops/layout.ts';
import { allFinite } from '../graph/ops/optim.ts';
import { input, type Shape, type Tensor } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import type { LatentDiffusion } from '../models/latent.ts';
import type { RunOptions, Values } from '../runtime/index.ts';
import type { ClipTokenizer } from '../text/tokenizer.ts';
import { checkSettings, type ImageModel, type ImageOptions, type Setting, type Settings } from './image_model.ts';
import { overlapped } from './overlap.ts';
import { runPaired, runPieces } from './pieces.ts';
import { continued, type ImageShape, part, planeOf, type Region, readRegion, takeAll, writeRegion } from './plane.ts';
import { Prompts } from './prompts.ts';
import type { Stages } from './stages.ts';

/** Images of one size that go through a model together. */
export interface Batch {
  /** [N, H, W, 3] in [0, 1]. */
  readonly shape: ImageShape;
  readonly bytes: Uint8Array;
  readonly prompts: readonly string[];
}

/** How restored images get their colours. */
interface Mending {
  /** Images whose colours are right, [N, H, W, 3]. */
  readonly style: Float32Array;
  readonly mend: (restored: Tensor, style: Tensor) => Tensor;
  /** Pixels around one that it looks at, besides statistics of whole images. */
  readonly reach: number;
}

/** How a network looks at an image that is larger than what it was trained on. */
export interface View {
  /** Positions a side of a window, and from one to the next. */
  readonly window: number;
  readonly stride: number;
  /** Of which windows are multiples. */
  readonly multiple: number;
  /** Positions up to which it sees all at once. */
  readonly most?: number;
}

export interface LatentModelOptions {
  /** What messages call it. */
  readonly name: string;
  /** Side of the squares it was trained on; 512 when left out. */
  readonly size?: number;
  /** Holds the parameters of its networks. */
  readonly stages: Stages;
  /** Without one the empty prompt alone is understood. */
  readonly tokenizer?: ClipTokenizer;
}

/** What latent diffusion models share: texts, padding, sampling, decoding, and images as bytes. */
export abstract class LatentModel implements ImageModel {
  readonly anySize = true;
  readonly size: number;
  protected abstract readonly taken: readonly Setting[];
  readonly #name: string;
  readonly #model: LatentDiffusion;
  protected readonly stages: Stages;
  protected readonly prompts: Prompts;
  readonly #walkers = new Map<string, Promise<[Sampling, NoiseSource]>>();

  protected constructor({ name, size = 512, stages, tokenizer }: LatentModelOptions, model: LatentDiffusion) {
    this.#name = name;
    this.size = size;
    this.#model = model;
    this.stages = stages;
    this.prompts = new Prompts(stages, model, tokenizer);
  }

  /** Restores one batch to bytes of its shape. */
  protected abstract restoreBatch(batch: Batch, options: ImageOptions): Promise<Uint8Array>;

  async restore(images: readonly Rgb[], options: ImageOptions): Promise<Rgb[]> {
    this.check(options);
    const restored: Rgb[] = [];
    while (restored.length < images.length) {
      const done = restored.length;
      const { width, height } = images[done];
      const count = images
        .slice(done, done + options.batch)
        .findIndex((image) => image.width !== width || image.height !== height);
      const chunk = images.slice(done, count < 0 ? done + options.batch : done + count);
      const onProgress = (fraction: number): void =>
        options.onProgress?.((done + fraction * chunk.length) / images.length);
      const size = width * height * 3;
      const prompts = chunk.map((_, i) => options.prompts?.[done + i] ?? options.prompt ?? '');
      const batch: Batch = { shape: [chunk.length, height, width, 3], bytes: await joined(chunk), prompts };
      const pixels = await this.restoreBatch(batch, { ...options, onProgress });
      for (const i of chunk.keys()) restored.push({ width, height, data: pixels.subarray(i * size, (i + 1) * size) });
    }
    return restored;
  }

  check(settings: Settings): void {
    checkSettings(this.#name, settings, this.taken);
    if (settings.prompt !== undefined) this.prompts.check(settings.prompt);
  }

  notesOn(prompt: string | undefined): string[] {
    const long = prompt !== undefined && this.prompts.isShortened(prompt);
    return long ? ['the prompt is too long for the model: its end was left out'] : [];
  }

  /** Image sides must be multiples of this. */
  protected get multiple(): number {
    return this.#model.factor * this.#model.unet.multiple;
  }

  /** The shape of the latents of a batch, padded. */
  protected latentShape({ shape: [n, h, w] }: Batch): ImageShape {
    const side = (size: number): number => (Math.ceil(size / this.multiple) * this.multiple) / this.#model.factor;
    return [n, side(h), side(w), this.#model.channels];
  }

  /** Noise of `seed` by index, alike for each image of `shape` [N, ...]. */
  protected async noise(shape: Shape, seed: number, index: number): Promise<Float32Array> {
    const [, source] = await this.#walker(shape);
    const one = await source.draw(BigInt(seed), index);
    const all = new Float32Array(shape[0] * one.length);
    for (let i = 0; i < shape[0]; i++) all.set(one, i * one.length);
    return all;
  }

  /** Walks a sampler's steps for latents of `shape`. Noise of index 0 is left for the start. */
  protected async sample(shape: Shape, seed: number, options: Omit<SamplingOptions, 'noise'>): Promise<Float32Array> {
    const [sampling] = await this.#walker(shape);
    return sampling.run({ ...options, noise: (i) => this.noise(shape, seed, i + 1) });
  }

  #walker(shape: Shape): Promise<[Sampling, NoiseSource]> {
    const key = shape.join('x');
    let made = this.#walkers.get(key);
    if (!made) {
      const { device } = this.stages;
      made = Promise.all([Sampling.create(device, shape), NoiseSource.create(device, [1, ...shape.slice(1)])]);
      this.#walkers.set(key, made);
    }
    return made;
  }

  /** The weighted sum of two latents of `shape`. */
  protected async mixed(
    a: Float32Array,
    b: Float32Array,
    weights: readonly [number, number],
    shape: Shape,
    options: RunOptions,
  ): Promise<Float32Array> {
    const trace = () => ({ y: weightedSum(input('weights', [2]), [input('a', shape), input('b', shape)]) });
    const feeds = { a, b, weights: Float32Array.from(weights) };
    return (await this.stages.run(`mix ${shape.join('x')}`, trace, feeds, options)).y as Float32Array;
  }

  /** What the encoder makes of images [N, H, W, 3] in [0, 1], continued to sides that the model takes: in tiles if need be. */
  protected async encode(
    image: Float32Array,
    { shape }: Batch,
    mode: 'zero' | 'replicate',
    options: RunOptions,
  ): Promise<{ mean: Float32Array; std: Float32Array }> {
    const padded = () => padToMultiple(input('image', shape), this.multiple, mode);
    const trace = () => ({ ...this.#model.encode(padded()) });
    const key = `encode ${shape.join('x')}`;
    if (this.stages.fits(key, trace)) return latentsOf(await this.stages.run(key, trace, { image }, options));
    const [n, h, w, c] = padded().shape;
    const plane = continued(planeOf(image, shape), [n, h, w, c], mode);
    const moments = await runPieces(this.stages, 'encode', this.#model.encoding(), plane, options);
    const values = await takeAll(moments);
    const split = () => ({ ...this.#model.distribution(input('moments', moments.shape)) });
    return latentsOf(
      await this.stages.run(
        `moments ${moments.shape.join('x')}`,
        split,
        { moments: values },
        { signal: options.signal },
      ),
    );
  }

  /**
   * What a network makes of images of `shape`, [N, H, W, C] like them: at once, or through windows where there are more positions
   * than it should see, or the plan for all is beyond the budget.
   *
   * @param trace its outputs, of which `y` counts, for a shape
   * @param images what it reads of that shape, by the names of the feeds; `others` are its other feeds
   */
  protected async through(
    key: string,
    shape: ImageShape,
    { window, stride, multiple, most = Infinity }: View,
    trace: (shape: ImageShape) => Record<string, Tensor>,
    images: Readonly<Record<string, Float32Array | Uint8Array>>,
    others: Values,
    options: RunOptions,
  ): Promise<Float32Array> {
    const [n, h, w, c] = shape;
    const size = Math.floor(Math.min(window, h, w) / multiple) * multiple;
    const whole = `${key} ${shape.join('x')}`;
    const all = (): Record<string, Tensor> => trace(shape);
    if (!size || (size === h && size === w) || (h * w <= most && this.stages.fits(whole, all))) {
      return (await this.stages.run(whole, all, { ...images, ...others }, options)).y as Float32Array;
    }
    const tile = [n, size, size, c] as const;
    const each = async (region: Region): Promise<Float32Array> => {
      const seen = Object.entries(images).map(([name, values]) => [name, readRegion(values, shape, region)]);
      const feeds = { ...Object.fromEntries(seen), ...others };
      const { signal } = options;
      return (await this.stages.run(`${key} ${tile.join('x')}`, () => trace(tile), feeds, { signal }))
        .y as Float32Array;
    };
    const windows = { size, stride: Math.ceil((size * stride) / window) };
    return takeAll(await overlapped(this.stages, shape, { windows, each, ...options }));
  }

  /** The images that latents decode to, as bytes of the batch's shape, with their colours mended where that is wanted. */
  protected async finish(
    latents: Float32Array,
    batch: Batch,
    mending: Mending | undefined,
    options: RunOptions,
  ): Promise<Uint8Array> {
    const { shape } = batch;
    const latentShape = this.latentShape(batch);
    const trace = () => {
      const whole = this.#model.decode(input('latents', latentShape));
      const plain = slice(whole, [0, 0, 0, 0], shape);
      const y = mending ? mending.mend(plain, input('style', shape)) : plain;
      return { image: bytesOf(y), finite: allFinite([y]) };
    };
    const key = `finish ${shape.join('x')}`;
    if (!this.stages.fits(key, trace)) return this.#finishInTiles(latents, batch, mending, options);
    const feeds = { latents, ...(mending && { style: mending.style }) };
    const { image, finite } = await this.stages.run(key, trace, feeds, options);
    if (!finite[0]) throw this.#notFinite();
    return image as Uint8Array;
  }

  async #finishInTiles(
    latents: Float32Array,
    batch: Batch,
    mending: Mending | undefined,
    options: RunOptions,
  ): Promise<Uint8Array> {
    const { shape } = batch;
    const decoded = await runPieces(
      this.stages,
      'decode',
      this.#model.decoding(),
      planeOf(latents, this.latentShape(batch)),
      options,
    );
    const pixels = new Uint8Array(shape.reduce((a, b) => a * b, 1));
    try {
      const restored = part(decoded, shape);
      const planes = mending ? [restored, planeOf(mending.style, shape)] : [restored];
      const piece = { forward: mending?.mend ?? ((x: Tensor) => x), reach: mending?.reach ?? 0, scale: 1 };
      const write = (tile: Region, values: TypedArray): void => writeRegion(pixels, shape, tile, values as Uint8Array);
      const finite = await runPaired(this.stages, 'mend', piece, planes, bytesOf, write, {
        signal: options.signal,
      });
      if (!finite) throw this.#notFinite();
      return pixels;
    } finally {
      await decoded.dispose();
    }
  }

  #notFinite(): ReflError {
    const why = 'the model computed values that are not finite: its weights are unusable';
    return new ReflError('ERR_WEIGHTS', `${this.#name}: ${why}`);
  }

  dispose(): void {
    for (const made of this.#walkers.values()) {
      made.then(
        (parts) => {
          for (const part of parts) part.dispose();
        },
        () => {},
      );
    }
    this.#walkers.clear();
    this.stages.dispose();
  }
}

/** Bytes of images one after another; a single one's are not copied. */
async function joined(images: readonly Rgb[]): Promise<Uint8Array> {
  const [{ data }] = images;
  if (images.length === 1) return new Uint8Array(data.buffer, data.byteOffset, data.length);
  const bytes = new Uint8Array(images.length * data.length);
  for (const [i, image] of images.entries()) {
    bytes.set(image.data, i * data.length);
    await setImmediate();
  }
  return bytes;
}

/** Images as bytes: cut off and not rounded, as the published code of DiffBIR and OSEDiff does it. */
const bytesOf = (image: Tensor): Tensor => cast(affine(clamp(image, 0, 1), 255), 'u8');

const latentsOf = (values: Values): { mean: Float32Array; std: Float32Array } =>
  values as { mean: Float32Array; std: Float32Array };

/** Bytes as numbers from 0 to 1. */
export const unitOf = (bytes: Tensor): Tensor => affine(cast(bytes, 'f32'), 1 / 255);

/** Images continued to the right and below until both sides are multiples of `multiple`. */
export function padToMultiple(x: Tensor, multiple: number, mode: PadMode): Tensor {
  const [, h, w] = x.shape;
  const gap = (size: number): number => Math.ceil(size / multiple) * multiple - size;
  return pad(x, [0, 0, 0, 0], [0, gap(h), gap(w), 0], mode);
}
