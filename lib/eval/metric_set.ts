import { createHash } from 'node:crypto';
import { ReflError } from '../errors.ts';
import { decodeImage, type ImageSource, type Rgb } from '../image/picture.ts';
import {
  type FeatureSet,
  type FeatureStatistics,
  fidPreprocess,
  frechetDistance,
  loadInception,
  readFeatureStatistics,
} from '../metrics/fid.ts';
import { InceptionV3 } from '../models/inception.ts';
import { type Device, openDevice, type Parameters } from '../runtime/index.ts';
import { openWeights } from '../weights/open.ts';
import { type Meter, PictureProgram, ReferenceFaces, unit } from './meters.ts';
import { type Choice, type ChoiceOptions, choose, type MissingMetric } from './metric_choice.ts';
import type { Bench, Metric } from './metrics.ts';

export interface MetricSetOptions extends ChoiceOptions {
  /** As {@link openDevice} takes it. */
  readonly device?: string;
  readonly threads?: number;
}

/**
 * Measures pictures by a set of metrics, in float32 on one device.
 *
 *     using set = await MetricSet.load({ paired: true });
 *     const { psnr, naturalness } = await set.measure('restored.png', 'original.png');
 */
export class MetricSet {
  /** `published` where the networks' files were given, else `default`. */
  readonly name: 'default' | 'published';
  readonly metrics: readonly Metric[];
  /** Published metrics whose files the folder lacks. */
  readonly missing: readonly MissingMetric[];
  readonly #device: Device;
  readonly #parameters: Parameters;
  readonly #meters: ReadonlyMap<string, Meter>;
  readonly #faces: ReferenceFaces | undefined;
  readonly #inception: PictureProgram | undefined;
  readonly #statistics: FeatureStatistics | undefined;
  /** Features of each picture, and of each reference once, by a hash of its bytes. */
  readonly #features: Float32Array[] = [];
  readonly #references = new Map<string, Float32Array>();

  private constructor(
    { set, metrics, missing }: Choice,
    device: Device,
    parameters: Parameters,
    meters: ReadonlyMap<string, Meter>,
    faces: ReferenceFaces | undefined,
    inception: PictureProgram | undefined,
    statistics: FeatureStatistics | undefined,
  ) {
    this.name = set;
    this.metrics = metrics.map(({ metric }) => metric);
    this.missing = missing;
    this.#device = device;
    this.#parameters = parameters;
    this.#meters = meters;
    this.#faces = faces;
    this.#inception = inception;
    this.#statistics = statistics;
  }

  /**
   * Loads the networks. Throws ERR_OPTION where a name is unknown, where what was asked for by name cannot be measured, and where
   * nothing can; ERR_FILE and ERR_WEIGHTS for files that cannot be used.
   */
  static async load(options: MetricSetOptions): Promise<MetricSet> {
    const { fidStatistics, device: kind, threads } = options;
    if (kind === 'null') throw new ReflError('ERR_DEVICE', 'the device null computes nothing: use cpu');
    const choice = await choose(options);
    const statistics = fidStatistics === undefined ? undefined : await readFeatureStatistics(fidStatistics);
    const device = await openDevice(kind, { threads });
    const parameters = device.parameters();
    const meters = new Map<string, Meter>();
    let faces: Promise<ReferenceFaces> | undefined;
    const bench: Bench = {
      device,
      parameters,
      faces: () => {
        faces ??= ReferenceFaces.load(device);
        return faces;
      },
    };
    try {
      for (const { metric, paths } of choice.metrics) meters.set(metric.name, await metric.load(bench, paths));
      const inception = choice.inception ? await loadFid(device, parameters, choice.inception) : undefined;
      return new MetricSet(choice, device, parameters, meters, await faces, inception, statistics);
    } catch (error) {
      for (const meter of meters.values()) meter.dispose();
      (await faces?.catch(() => undefined))?.dispose();
      parameters.dispose();
      device.dispose();
      throw error;
    }
  }

  /**
   * What every metric says of a picture, by name. Throws ERR_IMAGE where one cannot be measured or comes out as no finite
   * number, naming it, and where the picture and its reference differ in size; and ERR_FILE. What is looked up in a
   * reference is looked up once where it is given as one and the same {@link Rgb} several times.
   */
  async measure(
    image: ImageSource | Rgb,
    beside?: ImageSource | Rgb,
    { signal }: { signal?: AbortSignal } = {},
  ): Promise<Record<string, number>> {
    const picture = await pixelsOf(image);
    const reference = beside === undefined ? undefined : await pixelsOf(beside);
    if (reference && (reference.width !== picture.width || reference.height !== picture.height)) {
      const sizes = `${picture.width}x${picture.height}, its reference ${reference.width}x${reference.height}`;
      throw new ReflError('ERR_IMAGE', `the picture has ${sizes} pixels`);
    }
    const values: Record<string, number> = {};
    for (const { name, paired } of this.metrics) {
      if (paired && !reference) throw new ReflError('ERR_OPTION', `${name} needs a reference`);
      const value = await this.#meters
        .get(name)!
        .measure(picture, reference ?? picture, signal)
        .catch((cause) => {
          if (!(cause instanceof ReflError)) throw cause;
          throw new ReflError('ERR_IMAGE', `${name} cannot be measured: ${cause.message}`, { cause });
        });
      if (!Number.isFinite(value)) {
        const why = name === 'psnr' && value > 0 ? ': the picture equals its reference' : '';
        throw new ReflError('ERR_IMAGE', `${name} came out as ${value}${why}`);
      }
      values[name] = value;
    }
    if (!this.#inception) return values;
    this.#features.push(await this.#feature(picture, signal));
    if (reference && !this.#statistics) {
      const key = createHash('sha256').update(reference.data).digest('hex');
      if (!this.#references.has(key)) this.#references.set(key, await this.#feature(reference, signal));
    }
    return values;
  }

  async #feature(picture: Rgb, signal?: AbortSignal): Promise<Float32Array> {
    return (await this.#inception!.run(picture, picture, signal)).feature as Float32Array;
  }

  /**
   * The Frechet inception distance of all pictures measured so far from their references, or from the given statistics; undefined
   * without Inception's file and where there are less than two of either.
   */
  async fid({ signal }: { signal?: AbortSignal } = {}): Promise<number | undefined> {
    const pictures = together(this.#features);
    const others = this.#statistics ?? together([...this.#references.values()]);
    return pictures && others && frechetDistance(pictures, others, { signal });
  }

  /** Frees the networks and the device. Safe to call twice. */
  dispose(): void {
    for (const meter of this.#meters.values()) meter.dispose();
    this.#inception?.dispose();
    this.#faces?.dispose();
    this.#parameters.dispose();
    this.#device.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Features of two pictures or more as one set. */
function together(features: readonly Float32Array[]): FeatureSet | undefined {
  if (features.length < 2) return undefined;
  const width = features[0].length;
  const values = new Float32Array(width * features.length);
  features.forEach((feature, i) => {
    values.set(feature, i * width);
  });
  return { width, values };
}

const pixelsOf = async (image: ImageSource | Rgb): Promise<Rgb> =>
  typeof image === 'object' && 'width' in image && 'data' in image ? image : decodeImage(image);

async function loadFid(device: Device, parameters: Parameters, path: string): Promise<PictureProgram> {
  const network = new InceptionV3();
  await loadInception(parameters, network, await openWeights(path));
  return new PictureProgram(device, parameters, (picture) => ({
    feature: network.forward(fidPreprocess(unit(picture))).pool,
  }));
}
