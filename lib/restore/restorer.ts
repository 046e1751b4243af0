import { ReflError } from '../errors.ts';
import { FaceFinder } from '../faces/finder.ts';
import { decodeImage, encodePng, type ImageSource, type Picture, type Rgb } from '../image/picture.ts';
import { type Device, openDevice } from '../runtime/index.ts';
import type { ImageModel, Settings } from './image_model.ts';
import { type ModelSource, openImageModel } from './open.ts';
import { planPhotograph } from './photograph.ts';
import { type Plan, planAligned } from './plan.ts';
import { planTiles, planWhole } from './tiles.ts';

export interface RestorerOptions extends ModelSource {
  /**
   * `face-256`, which ships with the package; one of `diffbir-v1`, `diffbir-v2`, `diffbir-v2.1`, `osediff` and `osediff-face`,
   * whose files you have; or the path of a .safetensors file of the kind of `face-256`.
   */
  readonly model?: string;
  /** As {@link openDevice} takes it: `auto` (the default), `cpu`, `cuda`, `cuda:N`. */
  readonly device?: string;
  /** Threads of a CPU device; as many as the machine runs at once by default. */
  readonly threads?: number;
  /** Faces that go through the model at once, 1 by default: more cost memory. */
  readonly batch?: number;
  readonly signal?: AbortSignal;
}

export interface RestoreOptions extends Settings {
  /** One a picture, in place of `prompt`. */
  readonly prompts?: readonly string[];
  /** The picture is one face, already cropped and aligned; otherwise faces are found, restored and pasted back. */
  readonly aligned?: boolean;
  /** All of the picture is restored at its own resolution, in overlapping tiles, and faces within it as without. */
  readonly tile?: boolean;
  /** Of the noise that a model draws, 0 by default: a whole number. `face-256` draws none. */
  readonly seed?: number;
  /** Aborting rejects with the signal's reason, within the model's current segment. */
  readonly signal?: AbortSignal;
  /** Called with the fraction done, from 0 to 1. */
  readonly onProgress?: (fraction: number) => void;
}

export interface Figures {
  readonly width: number;
  readonly height: number;
  /** Faces restored. Where none was found, the picture comes back as it was. */
  readonly faces: number;
  /** From the start of the call to this picture being ready. */
  readonly seconds: number;
  /** What the user should know: frames left out, damage in the file, no face found. */
  readonly notes: readonly string[];
}

export interface Restored {
  /** A PNG of the size of the (upright) input, with its alpha channel. */
  readonly image: Buffer;
  readonly figures: Figures;
}

interface Job {
  readonly picture: Picture;
  readonly plan: Plan;
}

/**
 * Restores faces in pictures with one model on one device.
 *
 *     using restorer = await Restorer.load();
 *     const { image, figures } = await restorer.restore('portrait.jpg');
 *
 * The same picture, options, batch and thread count give the same bytes.
 */
export class Restorer {
  readonly model: string;
  private readonly device: Device;
  private readonly images: ImageModel;
  private readonly batch: number;
  /** Loaded by the first photograph that is not aligned. */
  private finder: Promise<FaceFinder> | undefined;

  private constructor(model: string, device: Device, images: ImageModel, batch: number) {
    this.model = model;
    this.device = device;
    this.images = images;
    this.batch = batch;
  }

  /**
   * Opens a device and loads a model. Throws ERR_OPTION on a model name or number that makes no sense, ERR_DEVICE, ERR_FILE
   * and ERR_WEIGHTS, naming the file.
   */
  static async load({
    model = 'face-256',
    weights,
    tokenizer,
    networks,
    memory,
    dtype,
    fold,
    device = 'auto',
    threads,
    batch = 1,
    signal,
  }: RestorerOptions = {}): Promise<Restorer> {
    if (!Number.isInteger(batch) || batch < 1) {
      throw new ReflError('ERR_OPTION', `batch must be a whole number of at least 1, got ${batch}`);
    }
    if (device === 'null') throw new ReflError('ERR_DEVICE', 'the device null computes nothing: use cpu');
    signal?.throwIfAborted();
    const opened = await openDevice(device, { threads });
    try {
      const images = await openImageModel(opened, model, { weights, tokenizer, networks, memory, dtype, fold });
      signal?.throwIfAborted();
      return new Restorer(model, opened, images, batch);
    } catch (error) {
      opened.dispose();
      throw error;
    }
  }

  /** Restores one picture. Throws ERR_OPTION, ERR_IMAGE, ERR_FILE, or what the device throws. */
  async restore(source: ImageSource, options: RestoreOptions = {}): Promise<Restored> {
    const [result] = await this.restoreMany([source], options);
    if (result.status === 'rejected') throw result.reason;
    return result.value;
  }

  /**
   * Restores pictures together, their faces in batches. One result or error each, in order; an abort rejects the whole call.
   */
  async restoreMany(
    sources: readonly ImageSource[],
    { aligned, tile, seed = 0, prompts, signal, onProgress, ...settings }: RestoreOptions = {},
  ): Promise<PromiseSettledResult<Restored>[]> {
    if (!Number.isSafeInteger(seed)) throw new ReflError('ERR_OPTION', `seed must be a whole number, got ${seed}`);
    if (prompts && prompts.length !== sources.length) {
      throw new ReflError('ERR_OPTION', `${sources.length} pictures need as many prompts, got ${prompts.length}`);
    }
    for (const prompt of prompts ?? [settings.prompt]) this.images.check({ ...settings, prompt });
    const start = performance.now();
    const jobs = await Promise.allSettled(
      sources.map(async (source): Promise<Job> => {
        const picture = await decodeImage(source);
        signal?.throwIfAborted();
        return { picture, plan: await this.plan(picture, { aligned, tile, signal }) };
      }),
    );
    signal?.throwIfAborted();
    const plans = jobs.map((job) => (job.status === 'fulfilled' ? job.value.plan.crops : []));
    // A failure in here is that of every picture of the batch.
    const running = this.images.restore(plans.flat(), {
      ...settings,
      prompts: prompts && plans.flatMap((crops, i) => crops.map(() => prompts[i])),
      batch: this.batch,
      seed,
      signal,
      onProgress,
    });
    const finish = async (job: PromiseSettledResult<Job>, index: number): Promise<Restored> => {
      if (job.status === 'rejected') throw job.reason;
      const { picture, plan } = job.value;
      const first = plans.slice(0, index).flat().length;
      const pixels = await plan.compose((await running).slice(first, first + plan.crops.length));
      const image = await encodePng(pixels, picture.alpha);
      const seconds = (performance.now() - start) / 1000;
      const notes = [...picture.notes, ...plan.notes, ...this.images.notesOn(prompts?.[index] ?? settings.prompt)];
      return { image, figures: { width: picture.width, height: picture.height, faces: plan.faces, seconds, notes } };
    };
    const results = await Promise.allSettled([...jobs.map(finish), running]);
    signal?.throwIfAborted();
    return results.slice(0, -1) as PromiseSettledResult<Restored>[];
  }

  private async plan(picture: Picture, { aligned, tile = false, signal }: RestoreOptions): Promise<Plan> {
    const { size, anySize } = this.images;
    const whole = (all: Rgb): Promise<Plan> => (anySize ? planWhole(all, size) : planTiles(all, size));
    if (aligned) return tile ? { ...(await whole(picture)), faces: 1 } : planAligned(picture, size);
    this.finder ??= FaceFinder.load(this.device);
    const around = tile ? whole : undefined;
    return planPhotograph(picture, { device: this.device, finder: await this.finder, size, around, signal });
  }

  /** Frees the device and the model at once; runs under way reject. Safe to call twice. */
  dispose(): void {
    this.finder?.then(
      (finder) => finder.dispose(),
      () => {},
    );
    this.finder = undefined;
    this.images.dispose();
    this.device.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
