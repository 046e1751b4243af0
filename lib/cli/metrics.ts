import { basename, dirname, parse, relative, resolve } from 'node:path';
import type { CommandModule } from 'yargs';
import { JsonLinesFile, type Line } from '../data/jsonl.ts';
import { ReflError } from '../errors.ts';
import { MetricSet } from '../eval/metric_set.ts';
import { defaultMetrics, type Metric, publishedMetrics } from '../eval/metrics.ts';
import { decodeImage, type Picture } from '../image/picture.ts';
import { UsageError } from './failure.ts';
import { listInputs } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions, fileOptions, inputs } from './options.ts';
import { Report } from './report.ts';

interface Args {
  inputs: string[];
  reference?: string;
  weights?: string;
  only?: string[];
  fidStatistics?: string;
  out?: string;
  json: boolean;
  device: string;
  threads?: number;
}

const list = (metrics: readonly Metric[]): string => metrics.map(({ name }) => name).join(', ');

export const metricsCommand: CommandModule<object, Args> = {
  command: 'metrics <inputs..>',
  describe: 'measure pictures, alone and beside their references',
  builder: (yargs) =>
    yargs
      .positional('inputs', inputs)
      .options({
        reference: {
          requiresArg: true,
          describe: "a picture, or a folder with one of each picture's name or of its folder's name",
          type: 'string',
        },
        weights: {
          requiresArg: true,
          describe: 'folder with the files of published networks; without it, metrics that need none',
          type: 'string',
        },
        only: { requiresArg: true, describe: 'names of the metrics to measure', type: 'string', array: true },
        'fid-statistics': {
          requiresArg: true,
          describe: 'mean and covariance of features (.npz, ...) that the FID is taken from, in place of references',
          type: 'string',
        },
        out: {
          alias: 'o',
          requiresArg: true,
          describe: 'file of JSON lines to write; pictures that it has already are left out',
          type: 'string',
        },
        json: fileOptions.json,
        ...deviceOptions,
      })
      .epilogue(
        `Without --weights: ${list(defaultMetrics)}.\nWith it, each whose file is there: ${list(publishedMetrics)}, fid.`,
      ),
  handler: measure,
};

async function measure({ inputs: paths, reference, out, json, ...options }: Args): Promise<void> {
  const { files, failures } = await listInputs(paths);
  const references = reference === undefined ? undefined : await References.open(reference);
  using set = await MetricSet.load({ ...options, paired: references !== undefined });
  await using results = out === undefined ? undefined : await JsonLinesFile.open(out);
  const known = results ? readKnown(results.lines, out!, set) : new Map<string, Values>();
  const report = new Report(files.length, json);
  const remark = (text: string): void => report.progress.log(`refl-native: ${text}`);
  for (const { name, files } of set.missing) remark(`${name} is left out: ${files.join(' and ')} not found`);
  for (const { input, error } of failures) report.fail(input, error);
  const names = set.metrics.map(({ name }) => name);
  const measured: Values[] = [];
  let skipped = 0;
  for (const [i, file] of files.entries()) {
    report.progress.update(i, basename(file));
    let values = known.get(resolve(file));
    if (values) skipped++;
    else {
      try {
        values = await set.measure(await decodeImage(file), await references?.of(file), { signal: interrupted });
      } catch (error) {
        if (interrupted.aborted) throw error;
        report.fail(file, error);
        continue;
      }
      // The FID alone says nothing of one picture.
      if (names.length) {
        await results?.append({
          image: relative(dirname(resolve(out!)), resolve(file)),
          metrics: values,
          set: set.name,
        });
        report.result(file, `${show(values)}  ${file}`, { metrics: values, set: set.name });
      }
    }
    measured.push(values);
  }
  report.progress.clear();
  if (skipped) remark(`${skipped} of the pictures are in ${out} already`);
  if (!measured.length) return;
  const mean = (name: string): number => measured.reduce((sum, values) => sum + values[name], 0) / measured.length;
  const means = Object.fromEntries(names.map((name) => [name, mean(name)]));
  // Of all pictures or none.
  const fid = skipped ? undefined : await set.fid({ signal: interrupted });
  if (json) console.log(JSON.stringify({ set: set.name, pictures: measured.length, means, fid }));
  else {
    const all = fid === undefined ? means : { ...means, fid };
    console.log(`${show(all)}  mean of ${measured.length}, ${set.name} set`);
  }
}

type Values = Readonly<Record<string, number>>;

const show = (values: Values): string =>
  Object.entries(values)
    .map(([name, value]) => `${name} ${value.toPrecision(4)}`)
    .join('  ');

/** What a file of results says of pictures, by their path; it must be of the same metrics. */
function readKnown(lines: readonly Line[], out: string, set: MetricSet): Map<string, Values> {
  const names = set.metrics.map(({ name }) => name).join(', ');
  return new Map(
    lines.map(({ where, record: { image, metrics, set: name } }) => {
      const values = (metrics ?? {}) as Values;
      if (typeof image !== 'string' || name !== set.name || Object.keys(values).join(', ') !== names) {
        throw new UsageError(`${where}: it is not of the ${set.name} metrics ${names}: give another file with --out`);
      }
      return [resolve(dirname(out), image), values];
    }),
  );
}

/** Where the reference of each picture lies. */
class References {
  readonly #path: string;
  /** Files by their names without endings; undefined where one picture is everyone's reference. */
  readonly #files: ReadonlyMap<string, string> | undefined;
  #last: { path: string; picture: Promise<Picture> } | undefined;

  private constructor(path: string, files?: ReadonlyMap<string, string>) {
    this.#path = path;
    this.#files = files;
  }

  static async open(path: string): Promise<References> {
    const { files, failures } = await listInputs([path]);
    if (failures.length) throw failures[0].error;
    if (files.length === 1 && files[0] === path) return new References(path);
    const named = new Map<string, string>();
    for (const file of files) {
      const { name } = parse(file);
      if (named.has(name))
        throw new UsageError(`${named.get(name)} and ${file} could both be the reference of ${name}`);
      named.set(name, file);
    }
    return new References(path, named);
  }

  /** The reference of a picture. Throws ERR_FILE where there is none, and what {@link decodeImage} throws. */
  async of(file: string): Promise<Picture> {
    const { name, dir } = parse(resolve(file));
    const folder = basename(dir);
    const path = this.#files ? (this.#files.get(name) ?? this.#files.get(folder)) : this.#path;
    if (path === undefined) {
      throw new ReflError('ERR_FILE', `${file}: ${this.#path} holds no reference named ${name} or ${folder}`);
    }
    // Pictures of one face come one after another.
    if (this.#last?.path !== path) this.#last = { path, picture: decodeImage(path) };
    return this.#last.picture;
  }
}
