import { createHash } from 'node:crypto';
import { readdir } from 'node:fs/promises';
import { join, parse } from 'node:path';
import { ReflError } from '../errors.ts';
import { fileError } from '../image/files.ts';
import { decodeImage, type ImageSource, type Rgb } from '../image/picture.ts';
import { fidPreprocess, frechetDistance, loadInception } from '../metrics/fid.ts';
import { InceptionV3 } from '../models/inception.ts';
import { type Device, openDevice, type Parameters } from '../runtime/index.ts';
import { openWeights } from '../weights/open.ts';
import { type Meter, PictureProgram, ReferenceFaces, unit } from './meters.ts';
import { type Bench, defaultMetrics, inceptionFile, type Metric, publishedMetrics } from './metrics.ts';

export interface MetricSetOptions {
  /** A folder of published networks' files, under their own names. Without one, the set that needs no download. */
  readonly weights?: string;
  /** Whether pictures come with references; without them, metrics that compare are left out. */
  readonly paired: boolean;
  /** Names of the metrics to measure; all that can be by default. */
  readonly only?: readonly string[];
  /** As {@link openDevice} takes it. */
  readonly device?: string;
  readonly threads?: number;
}

/** A published metric that cannot be measured, and a name of each file that it lacks. */
export interface MissingMetric {
  readonly name: string;
  readonly files: readonly string[];
}

const endings = ['.safetensors', '.pth', '.pt', '.ckpt', '.bin'];

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
  /** Features of each picture, and of each reference once, by a hash of its bytes. */
  readonly #features: Float32Array[] = [];
  readonly #references = new Map<string, Float32Array>();

  private constructor(
    name: MetricSet['name'],
    { metrics, missing }: Choice,
    device: Device,
    parameters: Parameters,
    meters: ReadonlyMap<string, Meter>,
    faces: ReferenceFaces | undefined,
    inception: PictureProgram | undefined,
  ) {
    this.name = name;
    this.metrics = metrics;
    this.missing = missing;
    this.#device = device;
    this.#parameters = parameters;
    this.#meters = meters;
    this.#faces = faces;
    this.#inception = inception;
  }

  /**
   * Loads the networks. Throws ERR_OPTION where a name is unknown or nothing is left to measure, ERR_FILE and ERR_WEIGHTS for
   * files that cannot be used.
   */
  static async load({ weights, paired, only, device: kind, threads }: MetricSetOptions): Promise<MetricSet> {
    const files = weights === undefined ? undefined : await filesIn(weights);
    const choice = choose(files, { weights, paired, only });
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
      for (const metric of choice.metrics) {
        const paths = metric.files.map((names) => pathOf(files!, names)!);
        meters.set(metric.name, await metric.load(bench, paths));
      }
      const path = files && paired && !only ? pathOf(files, inceptionFile) : undefined;
      const inception = path === undefined ? undefined : await loadFid(device, parameters, path);
      const name = files ? 'published' : 'default';
      return new MetricSet(name, choice, device, parameters, meters, await faces, inception);
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
   * number, naming it, and where the picture and its reference differ in size; and ERR_FILE. The face of a reference that is given
   * as one and the same {@link Rgb} several times is looked for once.
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
    if (this.#inception && reference) {
      this.#features.push(await this.#feature(picture, signal));
      const key = createHash('sha256').update(reference.data).digest('hex');
      if (!this.#references.has(key)) this.#references.set(key, await this.#feature(reference, signal));
    }
    return values;
  }

  async #feature(picture: Rgb, signal?: AbortSignal): Promise<Float32Array> {
    return (await this.#inception!.run(picture, picture, signal)).feature as Float32Array;
  }

  /**
   * The Frechet inception distance of all pictures measured so far from their references; undefined without Inception's file and
   * where there are less than two of either.
   */
  async fid({ signal }: { signal?: AbortSignal } = {}): Promise<number | undefined> {
    const sets = [this.#features, [...this.#references.values()]];
    if (sets.some((set) => set.length < 2)) return undefined;
    const [a, b] = sets.map((set) => {
      const width = set[0].length;
      const values = new Float32Array(width * set.length);
      set.forEach((feature, i) => {
        values.set(feature, i * width);
      });
      return { width, values };
    });
    return frechetDistance(a, b, { signal });
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

const pixelsOf = async (image: ImageSource | Rgb): Promise<Rgb> =>
  typeof image === 'object' && 'width' in image && 'data' in image ? image : decodeImage(image);

async function loadFid(device: Device, parameters: Parameters, path: string): Promise<PictureProgram> {
  const network = new InceptionV3();
  await loadInception(parameters, network, await openWeights(path));
  return new PictureProgram(device, parameters, (picture) => ({
    feature: network.forward(fidPreprocess(unit(picture))).pool,
  }));
}

interface Choice {
  readonly metrics: readonly Metric[];
  readonly missing: readonly MissingMetric[];
}

function choose(
  files: ReadonlyMap<string, string> | undefined,
  { weights, paired, only }: Pick<MetricSetOptions, 'weights' | 'paired' | 'only'>,
): Choice {
  const all = files ? publishedMetrics : defaultMetrics;
  const names = all.map(({ name }) => name);
  for (const name of only ?? []) {
    if (names.includes(name)) continue;
    const where = files ? 'with weights' : 'without weights';
    throw new ReflError('ERR_OPTION', `unknown metric ${name}: ${where} there are ${names.join(', ')}`);
  }
  const wanted = all.filter(({ name }) => !only || only.includes(name));
  const missing: MissingMetric[] = [];
  const metrics = wanted.filter((metric) => {
    const lacking = metric.files.filter((known) => !pathOf(files!, known)).map(([name]) => name);
    if (lacking.length) missing.push({ name: metric.name, files: lacking });
    return !lacking.length && (paired || !metric.paired);
  });
  const named = only && missing[0];
  if (named) {
    const endingsOf = endings.join(' or ');
    throw new ReflError('ERR_OPTION', `${named.name} needs ${named.files.join(' and ')} (${endingsOf}) in ${weights}`);
  }
  const unpaired = only && wanted.find((metric) => metric.paired && !paired);
  if (unpaired) throw new ReflError('ERR_OPTION', `${unpaired.name} needs references`);
  if (!metrics.length) {
    const files = missing.flatMap((metric) => metric.files).join(', ');
    throw new ReflError('ERR_OPTION', `${weights} holds the files of no metric that can be measured: ${files}`);
  }
  return { metrics, missing };
}

/** The weights in a folder by their names without endings. */
async function filesIn(folder: string): Promise<Map<string, string>> {
  const found = await readdir(folder).catch((error) => {
    throw fileError('read', folder, error);
  });
  const files = new Map<string, string>();
  // The first ending in the list counts where there are several.
  for (const ending of endings) {
    for (const file of found) {
      const { name, ext } = parse(file);
      if (ext === ending && !files.has(name)) files.set(name, join(folder, file));
    }
  }
  return files;
}

const pathOf = (files: ReadonlyMap<string, string>, names: readonly string[]): string | undefined =>
  names.map((name) => files.get(name)).find((path) => path !== undefined);
