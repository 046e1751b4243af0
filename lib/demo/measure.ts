import { dirname, join, relative } from 'node:path';
import { JsonLinesFile, type Line, textOf } from '../data/jsonl.ts';
import { ReflError } from '../errors.ts';
import { MetricSet } from '../eval/metric_set.ts';
import { decodeImage, type Rgb } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import { Rule } from './rule.ts';

/** A restored picture and the original that it is measured by. */
export interface Restored {
  readonly image: string;
  readonly clean: string;
  /** Whether the classifier's metrics are wanted, too, and not the rule's distance alone. */
  readonly metrics: boolean;
}

export interface MeasureOptions {
  /** File for a line a picture: {"image": ..., "metrics": {...}}, which `train svm` takes too. */
  readonly out: string;
  /** File for a line a picture: {"image": ..., "distance": ...}. */
  readonly distances: string;
  /** The classifier's features, of the set that needs no download. */
  readonly metrics: readonly string[];
  readonly size: number;
  readonly device: string;
  readonly threads?: number;
  readonly signal?: AbortSignal;
  readonly onDone?: (done: number, total: number) => void;
}

/**
 * Measures restored pictures by the classifier's metrics, and by the {@link Rule} that stands in for people; those of one
 * original should follow one another. Started again, it goes on.
 *
 * @returns the rule's distances, by picture; not of pictures whose metrics are wanted and cannot be had, such as of a morph in
 *   which no face is found
 */
export async function measureRestored(
  device: Device,
  pictures: readonly Restored[],
  { out, distances: path, metrics, size, device: kind, threads, signal, onDone }: MeasureOptions,
): Promise<Map<string, number>> {
  await using measures = await JsonLinesFile.open(out);
  await using file = await JsonLinesFile.open(path);
  const pictureOf = (line: Line): string => join(dirname(out), textOf(line, 'image'));
  const measured = new Set(measures.lines.map(pictureOf));
  const distances = new Map(file.lines.map((line) => [pictureOf(line), line.record.distance as number]));
  const isDone = (picture: Restored): boolean =>
    distances.has(picture.image) && (!picture.metrics || measured.has(picture.image));
  if (pictures.every(isDone)) return distances;
  const wanted = pictures.some((picture) => picture.metrics);
  using set = wanted ? await MetricSet.load({ paired: true, only: metrics, device: kind, threads }) : undefined;
  using rule = await Rule.load(device, size);
  let original: { path: string; picture: Rgb } | undefined;
  for (const [done, restored] of pictures.entries()) {
    signal?.throwIfAborted();
    if (isDone(restored)) continue;
    const { image, clean } = restored;
    const name = relative(dirname(out), image);
    if (original?.path !== clean) original = { path: clean, picture: await decodeImage(clean) };
    const picture = await decodeImage(image);
    if (set && restored.metrics && !measured.has(image)) {
      const values = await set.measure(picture, original.picture, { signal }).catch(leaveOut);
      if (!values) continue;
      await measures.append({ image: name, metrics: values });
    }
    const distance = await rule.distance(picture, original.picture);
    await file.append({ image: name, distance });
    distances.set(image, distance);
    onDone?.(done + 1, pictures.length);
  }
  return distances;
}

function leaveOut(error: unknown): undefined {
  if (!(error instanceof ReflError && error.code === 'ERR_IMAGE')) throw error;
}
