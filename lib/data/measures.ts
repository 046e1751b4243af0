import { dirname, resolve } from 'node:path';
import { ReflError } from '../errors.ts';
import { type Comparison, cutNote, type Read, unique } from './comparisons.ts';
import { type Line, readJsonLines, textOf } from './jsonl.ts';

/** What some metrics say of pictures. */
export interface Measures {
  /** Names of the metrics, in the order of the values. */
  readonly metrics: readonly string[];
  /** Values by the absolute path of a picture. */
  readonly values: ReadonlyMap<string, readonly number[]>;
}

/**
 * Reads what metrics say of pictures, a line each, pictures relative to the file's own folder:
 *
 *     {"image": "p7/0.png", "metrics": {"lpips": 0.21, "lmd": 1.9, "musiq": 71.2, ...}}
 *
 * Throws ERR_DATA where a value is not finite, and where pictures do not all have the same metrics.
 */
export async function readMeasures(path: string): Promise<Read<Measures>> {
  const { lines, cut } = await readJsonLines(path);
  const entries = lines.map((line) => ({
    line,
    value: { image: resolve(dirname(path), textOf(line, 'image')), metrics: metricsOf(line) },
  }));
  if (!entries.length) throw new ReflError('ERR_DATA', `${path}: it holds no values`);
  const metrics = Object.keys(entries[0].value.metrics).sort();
  for (const { line, value } of entries) {
    const own = Object.keys(value.metrics).sort();
    if (own.join() !== metrics.join()) {
      const both = `${own.join(', ') || 'none'}, the first line's ${metrics.join(', ') || 'none'}`;
      throw new ReflError('ERR_DATA', `${line.where}: its metrics are ${both}`);
    }
  }
  const { values, notes } = unique(entries, ({ image }) => `the picture ${image}`);
  const rows = values.map(({ image, metrics: own }) => [image, metrics.map((name) => own[name])] as const);
  return { value: { metrics, values: new Map(rows) }, notes: [...cutNote(path, cut), ...notes] };
}

function metricsOf(line: Line): Readonly<Record<string, number>> {
  const { metrics } = line.record;
  if (typeof metrics !== 'object' || metrics === null || !Object.keys(metrics).length) {
    throw new ReflError('ERR_DATA', `${line.where}: it needs an object of numbers under "metrics"`);
  }
  for (const [name, value] of Object.entries(metrics)) {
    if (!Number.isFinite(value)) throw new ReflError('ERR_DATA', `${line.where}: ${name} is not a finite number`);
  }
  return metrics as Record<string, number>;
}

/** The values of a pair's two pictures; undefined where one has none: not everything can be measured in every picture. */
export function measuresOf(
  { values }: Measures,
  { a, b }: Comparison,
): { a: readonly number[]; b: readonly number[] } | undefined {
  const [first, second] = [values.get(a), values.get(b)];
  return first && second && { a: first, b: second };
}
