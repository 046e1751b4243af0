import { dirname, relative, sep } from 'node:path';
import {
  type Comparison,
  checkFiles,
  comparisonOf,
  cutNote,
  type Read,
  shareOf,
  unique,
  type Verdict,
} from '../data/comparisons.ts';
import { type Line, readJsonLines, toJsonLines } from '../data/jsonl.ts';
import { type Measures, measuresOf } from '../data/measures.ts';
import { ReflError } from '../errors.ts';
import { writeAtomic } from '../image/files.ts';
import type { PreferenceModel } from './preference_svm.ts';

/**
 * A pair with its label. In a file of labels a line each, with the keys of a pair and
 *
 *     {..., "share": 0.93, "source": "svm", "margin": 1.42, "split": "train"}
 */
export interface Label extends Comparison {
  /** The part of the votes that A has or would have: 1 where everybody prefers it. */
  readonly share: number;
  /** Whether people voted, or the classifier stands in. */
  readonly source: 'people' | 'svm';
  /**
   * What the classifier makes of the pair, above 0 for A; the nearer to 0, the closer the pair. Also where people voted; 0 where
   * the pictures were not measured.
   */
  readonly margin: number;
  /** `heldout` for people that nothing may be trained on. */
  readonly split: 'train' | 'heldout';
}

/**
 * Labels pairs: by people's votes where there are any, by the classifier elsewhere, with its probability or, `hard`, with 0
 * or 1. Pairs that have neither votes nor measures are left out. Throws ERR_DATA where the metrics are not those of the
 * classifier.
 */
export function labelPairs(
  comparisons: readonly Comparison[],
  verdicts: ReadonlyMap<string, Verdict>,
  measures: Measures,
  { svm, metrics, heldOut }: PreferenceModel,
  { hard = false } = {},
): Label[] {
  const columns = metrics.map((name) => measures.metrics.indexOf(name));
  if (columns.includes(-1)) {
    const both = `${metrics.join(', ')}; there are ${measures.metrics.join(', ')}`;
    throw new ReflError('ERR_DATA', `the classifier was trained on ${both}`);
  }
  const held = new Set(heldOut);
  return comparisons.flatMap((comparison): Label[] => {
    const verdict = verdicts.get(comparison.pair);
    const votes = verdict && shareOf(verdict);
    const split = held.has(comparison.person) ? 'heldout' : 'train';
    const rows = measuresOf(measures, comparison);
    if (!rows) return votes === undefined ? [] : [{ ...comparison, share: votes, source: 'people', margin: 0, split }];
    const [a, b] = [rows.a, rows.b].map((row) => columns.map((k) => row[k]));
    const margin = svm.margin(a, b);
    if (votes !== undefined) return [{ ...comparison, share: votes, source: 'people', margin, split }];
    const share = hard ? (Math.sign(margin) + 1) / 2 : svm.probability(a, b);
    return [{ ...comparison, share, source: 'svm', margin, split }];
  });
}

/** Writes labels, pictures relative to the file, atomically. */
export async function writeLabels(path: string, labels: readonly Label[]): Promise<void> {
  const from = (picture: string): string => relative(dirname(path), picture).replaceAll(sep, '/');
  const records = labels.map((label) => ({
    ...label,
    a: from(label.a),
    b: from(label.b),
    ...(label.input === undefined ? {} : { input: from(label.input) }),
  }));
  await writeAtomic(path, toJsonLines(records));
}

/**
 * Reads a file of labels. `split` and `margin` may be missing, which are then `train` and 0. Throws ERR_FILE where pictures are
 * missing, ERR_DATA where lines make no sense or contradict one another.
 */
export async function readLabels(path: string): Promise<Read<Label[]>> {
  const { lines, cut } = await readJsonLines(path);
  const entries = lines.map((line) => ({ line, value: labelOf(line, dirname(path)) }));
  const { values, notes } = unique(entries, ({ pair }) => `the pair ${pair}`);
  if (!values.length) throw new ReflError('ERR_DATA', `${path}: it holds no pairs`);
  const splits = new Map<string, string>();
  for (const { line, value } of entries) {
    const { person, split } = value;
    if ((splits.get(person) ?? split) !== split) {
      throw new ReflError('ERR_DATA', `${line.where}: ${person} is held out in some pairs and trained on in others`);
    }
    splits.set(person, split);
  }
  await checkFiles(
    path,
    values.flatMap(({ a, b }) => [a, b]),
  );
  return { value: values, notes: [...cutNote(path, cut), ...notes] };
}

function labelOf(line: Line, folder: string): Label {
  const { share, source, margin = 0, split = 'train' } = line.record;
  const need = (why: string): ReflError => new ReflError('ERR_DATA', `${line.where}: it needs ${why}`);
  if (!(typeof share === 'number' && share >= 0 && share <= 1)) throw need('a "share" from 0 to 1');
  if (source !== 'people' && source !== 'svm') throw need('a "source", people or svm');
  if (!(typeof margin === 'number' && Number.isFinite(margin))) throw need('a finite "margin", or none');
  if (split !== 'train' && split !== 'heldout') throw need('a "split", train or heldout, or none');
  return { ...comparisonOf(line, folder), share, source, margin, split };
}
