import { ReflError } from '../errors.ts';
import { FaceFinder } from '../faces/finder.ts';
import { decodeImage, encodePng, type ImageSource, type Picture } from '../image/picture.ts';
import { type Device, openDevice } from '../runtime/index.ts';
import { CropModel } from './model.ts';
import { planPhotograph } from './photograph.ts';
import { type Plan, planAligned } from './plan.ts';
import { planTiles } from './tiles.ts';

export interface RestorerOptions {
  /** `face-256`, which ships with the package, or the path of a .safetensors file of the same kind. */
  readonly model?: string;
  /** As {@link openDevice} takes it: `auto` (the default), `cpu`, `cuda`, `cuda:N`. */
  readonly device?: string;
  /** Threads of a CPU device; as many as the machine runs at once by default. */
  readonly threads?: number;
  /** Faces that go through the model at once, 1 by default: more cost memory. */
  readonly batch?: number;
  readonly signal?: AbortSignal;
}

export interface RestoreOptions {
  /** The picture is one face, already cropped and aligned; otherwise faces are found, restored and pasted back. */
  readonly aligned?: boolean;
  /** All of the picture is restored at its own resolution, in overlapping tiles, and faces within it as without. */
  readonly tile?: boolean;
  /** Of the noise that a model draws, 0 by default: a whole number. One-step models, such as `face-256`, draw none. */
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
  private readonly crops: CropModel;
  private readonly batch: number;
  /** Loaded by the first photograph that is not aligned. */
  private finder: Promise<FaceFinder> | undefined;

  private constructor(model: string, device: Device, crops: CropModel, batch: number) {
    this.model = model;
    this.device = device;
    this.crops = crops;
    this.batch = batch;
  }

  /**
   * Opens a device and loads a model. Throws ERR_OPTION on a model name or number that makes no sense, ERR_DEVICE, ERR_FILE
   * and ERR_WEIGHTS, naming the file.
   */
  static async load({
    model = 'face-256',
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
      const crops = await CropModel.load(opened, model);
      signal?.throwIfAborted();
      return new Restorer(model, opened, crops, batch);
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
    { aligned, tile, seed = 0, signal, onProgress }: RestoreOptions = {},
  ): Promise<PromiseSettledResult<Restored>[]> {
    if (!Number.isSafeInteger(seed)) throw new ReflError('ERR_OPTION', `seed must be a whole number, got ${seed}`);
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
    const running = this.crops.restore(plans.flat(), this.batch, { signal, onProgress });
    const finish = async (job: PromiseSettledResult<Job>, index: number): Promise<Restored> => {
      if (job.status === 'rejected') throw job.reason;
      const { picture, plan } = job.value;
      const first = plans.slice(0, index).flat().length;
      const pixels = await plan.compose((await running).slice(first, first + plan.crops.length));
      const image = await encodePng(pixels, picture.alpha);
      const seconds = (performance.now() - start) / 1000;
      const notes = [...picture.notes, ...plan.notes];
      return { image, figures: { width: picture.width, height: picture.height, faces: plan.faces, seconds, notes } };
    };
    const results = await Promise.allSettled([...jobs.map(finish), running]);
    signal?.throwIfAborted();
    return results.slice(0, -1) as PromiseSettledResult<Restored>[];
  }

  private async plan(picture: Picture, { aligned, tile = false, signal }: RestoreOptions): Promise<Plan> {
    const {
      device,
      crops: { size },
    } = this;
    if (aligned) return tile ? { ...(await planTiles(picture, size)), faces: 1 } : planAligned(picture, size);
    this.finder ??= FaceFinder.load(device);
    return planPhotograph(picture, { device, finder: await this.finder, size, tile, signal });
  }

  /** Frees the device and the model at once; runs under way reject. Safe to call twice. */
  dispose(): void {
    this.finder?.then(
      (finder) => finder.dispose(),
      () => {},
    );
    this.finder = undefined;
    this.crops.dispose();
    this.device.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
