import { dirname, join, relative } from 'node:path';
import { JsonLinesFile, textOf } from '../data/jsonl.ts';
import { MetricSet } from '../eval/metric_set.ts';
import { decodeImage } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import { Rule } from './rule.ts';

/** A restored picture and the original that it is measured by. */
export interface Restored {
  readonly image: string;
  readonly clean: string;
}

export interface MeasureOptions {
  /** File for a line a picture: {"image": ..., "metrics": {...}, "distance": ...}, which `train svm` takes too. */
  readonly out: string;
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
 * @returns the rule's distances, by picture
 */
export async function measureRestored(
  device: Device,
  pictures: readonly Restored[],
  { out, metrics, size, device: kind, threads, signal, onDone }: MeasureOptions,
): Promise<Map<string, number>> {
  await using file = await JsonLinesFile.open(out);
  const folder = dirname(out);
  const distances = new Map(
    file.lines.map((line) => [join(folder, textOf(line, 'image')), line.record.distance as number]),
  );
  if (pictures.every(({ image }) => distances.has(image))) return distances;
  using set = await MetricSet.load({ paired: true, only: metrics, device: kind, threads });
  using rule = await Rule.load(device, size);
  let original: { path: string; picture: Awaited<ReturnType<typeof decodeImage>> } | undefined;
  for (const [done, { image, clean }] of pictures.entries()) {
    signal?.throwIfAborted();
    if (distances.has(image)) continue;
    if (original?.path !== clean) original = { path: clean, picture: await decodeImage(clean) };
    const picture = await decodeImage(image);
    const values = await set.measure(picture, original.picture, { signal });
    const distance = await rule.distance(picture, original.picture);
    await file.append({ image: relative(folder, image), metrics: values, distance });
    distances.set(image, distance);
    onDone?.(done + 1, pictures.length);
  }
  return distances;
}
