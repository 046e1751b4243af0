import { readdir } from 'node:fs/promises';
import { join, parse } from 'node:path';
import { ReflError } from '../errors.ts';
import { fileError } from '../image/files.ts';
import { defaultMetrics, inceptionFile, type Metric, publishedMetrics } from './metrics.ts';

export interface ChoiceOptions {
  /** A folder of published networks' files, under their own names. Without one, the set that needs no download. */
  readonly weights?: string;
  /** Whether pictures come with references; without them, metrics that compare are left out. */
  readonly paired: boolean;
  /** Names of the metrics to measure, `fid` among them; all that can be by default. */
  readonly only?: readonly string[];
  /** A file with the mean and covariance of Inception's features of other pictures, for the FID in place of references. */
  readonly fidStatistics?: string;
}

/** A published metric that cannot be measured, and a name of each file that it lacks. */
export interface MissingMetric {
  readonly name: string;
  readonly files: readonly string[];
}

/** What is to be measured. */
export interface Choice {
  /** `published` where the networks' files were given, else `default`. */
  readonly set: 'default' | 'published';
  /** Each metric with its files. */
  readonly metrics: readonly { readonly metric: Metric; readonly paths: readonly string[] }[];
  /** The FID's network, where it is to be measured. */
  readonly inception?: string;
  /** What was not asked for by name and lacks files. */
  readonly missing: readonly MissingMetric[];
}

const endings = ['.safetensors', '.pth', '.pt', '.ckpt', '.bin', '.npz', '.mat'];

/** Throws ERR_OPTION where a name is unknown, where what was asked for by name cannot be measured, and where nothing can. */
export async function choose(options: ChoiceOptions): Promise<Choice> {
  const { weights, paired, only } = options;
  const files = weights === undefined ? undefined : await filesIn(weights);
  const all = files ? publishedMetrics : defaultMetrics;
  const names = [...all.map(({ name }) => name), ...(files ? ['fid'] : [])];
  const unknown = only?.find((name) => !names.includes(name));
  if (unknown !== undefined) {
    const where = files ? 'with weights' : 'without weights';
    throw new ReflError('ERR_OPTION', `unknown metric ${unknown}: ${where} there are ${names.join(', ')}`);
  }
  const missing: MissingMetric[] = [];
  /** Paths of a metric's files, or nothing where it has to be left out. */
  const find = (name: string, wanted: readonly (readonly string[])[], able: boolean): string[] | undefined => {
    if (only && !only.includes(name)) return undefined;
    const paths = wanted.map((known) => pathOf(files, known));
    const lacking = wanted.filter((_, i) => paths[i] === undefined).map(([first]) => first);
    if (only && lacking.length) {
      const needed = `${lacking.join(' and ')} (${endings.join(' or ')})`;
      throw new ReflError('ERR_OPTION', `${name} needs ${needed} in ${weights}`);
    }
    if (only && !able) throw new ReflError('ERR_OPTION', `${name} needs references`);
    if (lacking.length) missing.push({ name, files: lacking });
    return lacking.length || !able ? undefined : (paths as string[]);
  };
  const metrics = all.flatMap((metric) => {
    const paths = find(metric.name, metric.files, paired || !metric.paired);
    return paths ? [{ metric, paths }] : [];
  });
  const statistics = options.fidStatistics !== undefined;
  const inception = files ? find('fid', [inceptionFile], paired || statistics)?.[0] : undefined;
  if (statistics && inception === undefined) {
    throw new ReflError('ERR_OPTION', `statistics are for the FID, which needs ${inceptionFile[0]} among the weights`);
  }
  if (!metrics.length && inception === undefined) {
    const lacking = missing.flatMap((metric) => metric.files).join(', ');
    throw new ReflError('ERR_OPTION', `${weights} holds the files of no metric that can be measured: ${lacking}`);
  }
  return { set: files ? 'published' : 'default', metrics, inception, missing };
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

const pathOf = (files: ReadonlyMap<string, string> | undefined, names: readonly string[]): string | undefined =>
  names.map((name) => files?.get(name)).find((path) => path !== undefined);
