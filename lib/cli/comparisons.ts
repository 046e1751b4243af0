import { type Comparison, type Read, readChoices, readComparisons, type Verdict } from '../data/comparisons.ts';
import { type Measures, readMeasures } from '../data/measures.ts';

/** Options of the commands that read pairs, what people said of them, and metrics of their pictures. */
export const comparisonOptions = {
  choices: {
    requiresArg: true,
    describe: 'what people chose: JSON lines of pair, annotator, choice (a, b, tie, skip; undo takes one back)',
    type: 'string',
    demandOption: true,
  },
  metrics: {
    requiresArg: true,
    describe: 'metrics of the pictures: JSON lines of image and metrics, an object of numbers',
    type: 'string',
    demandOption: true,
  },
} as const;

export const pairsArgument = {
  describe: 'the pairs: JSON lines of pair, person, a, b (pictures, relative to the file) and maybe caption',
  type: 'string',
  demandOption: true,
} as const;

/** Notes shown of one file; more of them only say the same. */
const mostNotes = 5;

/** What a file held; its repairs are told on stderr. */
export function heard<T>({ value, notes }: Read<T>): T {
  const more = notes.length > mostNotes ? [`and ${notes.length - mostNotes} more like these`] : [];
  for (const note of [...notes.slice(0, mostNotes), ...more]) process.stderr.write(`refl-native: ${note}\n`);
  return value;
}

export async function readAll(files: { pairs: string; choices: string; metrics: string }): Promise<{
  comparisons: readonly Comparison[];
  verdicts: ReadonlyMap<string, Verdict>;
  measures: Measures;
}> {
  const comparisons = heard(await readComparisons(files.pairs));
  const verdicts = heard(await readChoices(files.choices, comparisons));
  return { comparisons, verdicts, measures: heard(await readMeasures(files.metrics)) };
}

/** Says on stderr that a file of metrics lacks pictures of `count` pairs, and what becomes of them. */
export function noteUnmeasured(count: number, path: string, fate: string): void {
  if (count) process.stderr.write(`refl-native: ${path} lacks pictures of ${count} pairs, which are ${fate}\n`);
}

/** 0.8712 as 87.12%. */
export const percent = (share: number): string => `${(100 * share).toFixed(2)}%`;

/** A share with its interval, in words. */
export const interval = ({ share, low, high, count }: { share: number; low: number; high: number; count: number }) =>
  count ? `${percent(share)} of ${count} (95%: ${percent(low)} to ${percent(high)})` : 'of none';
