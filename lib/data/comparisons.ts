import { access } from 'node:fs/promises';
import { dirname, resolve } from 'node:path';
import { ReflError } from '../errors.ts';
import { type Line, optionalTextOf, readJsonLines, textOf } from './jsonl.ts';

/**
 * Two restorations of one face, to be compared. In a file of pairs a line each:
 *
 *     {"pair": "p7-01", "person": "p7", "a": "p7/0.png", "b": "p7/1.png", "caption": "a man with glasses"}
 *
 * Pictures are paths from the file's own folder. "caption" and "input", the picture that both were restored from, may be left out.
 */
export interface Comparison {
  /** Name of the pair, once in a file. */
  readonly pair: string;
  /** Whose face it is. All pairs of a person are trained on, or none. */
  readonly person: string;
  /** Absolute paths of the pictures. */
  readonly a: string;
  readonly b: string;
  /** Absolute path of what both were restored from; it is for people to see, and nobody else checks that it is there. */
  readonly input?: string;
  readonly caption?: string;
}

export const choices = ['a', 'b', 'tie', 'skip'] as const;
export type Choice = (typeof choices)[number];

/** What people said of a pair. Whoever skipped it is not counted. */
export interface Verdict {
  readonly a: number;
  readonly b: number;
  readonly ties: number;
  readonly annotators: readonly { readonly annotator: string; readonly choice: Choice }[];
}

/** The part of the votes that A has, a tie being half of one; undefined without votes. */
export function shareOf({ a, b, ties }: Verdict): number | undefined {
  const votes = a + b + ties;
  return votes ? (a + ties / 2) / votes : undefined;
}

export interface Read<T> {
  readonly value: T;
  /** What was repaired, in words for the user. */
  readonly notes: readonly string[];
}

/** What the notes say of a line that was cut off. */
export const cutNote = (path: string, cut: boolean): string[] =>
  cut ? [`${path}: the last line was cut off, and is left out`] : [];

/** One comparison of a file of pairs, whose pictures lie relative to `folder`. */
export function comparisonOf(line: Line, folder: string): Comparison {
  const [caption, input] = ['caption', 'input'].map((key) => optionalTextOf(line, key));
  const comparison = {
    pair: textOf(line, 'pair'),
    person: textOf(line, 'person'),
    a: resolve(folder, textOf(line, 'a')),
    b: resolve(folder, textOf(line, 'b')),
    ...(input === undefined ? {} : { input: resolve(folder, input) }),
    ...(caption === undefined ? {} : { caption }),
  };
  if (comparison.a === comparison.b) throw new ReflError('ERR_DATA', `${line.where}: a and b are the same picture`);
  return comparison;
}

/**
 * Reads a file of pairs. A line that stands twice counts once. Throws ERR_FILE where pictures are missing, ERR_DATA where
 * lines make no sense or contradict one another.
 */
export async function readComparisons(path: string): Promise<Read<Comparison[]>> {
  const { lines, cut } = await readJsonLines(path);
  const folder = dirname(path);
  const { values, notes } = unique(
    lines.map((line) => ({ line, value: comparisonOf(line, folder) })),
    ({ pair }) => `the pair ${pair}`,
  );
  await checkFiles(
    path,
    values.flatMap(({ a, b }) => [a, b]),
  );
  return { value: values, notes: [...cutNote(path, cut), ...notes] };
}

/** Entries of different names, each once. ERR_DATA where two of one name differ. */
export function unique<T>(
  entries: readonly { readonly line: Line; readonly value: T }[],
  nameOf: (value: T) => string,
): { values: T[]; notes: string[] } {
  const known = new Map<string, { where: string; value: T }>();
  const notes: string[] = [];
  for (const { line, value } of entries) {
    const name = nameOf(value);
    const other = known.get(name);
    if (!other) known.set(name, { where: line.where, value });
    else if (JSON.stringify(other.value) === JSON.stringify(value)) notes.push(`${line.where}: ${name} stands twice`);
    else throw new ReflError('ERR_DATA', `${line.where}: ${name} contradicts ${other.where}`);
  }
  return { values: [...known.values()].map(({ value }) => value), notes };
}

/** Throws an ERR_FILE that lists which of the pictures that `path` names cannot be read. */
export async function checkFiles(path: string, named: readonly string[]): Promise<void> {
  const pictures = [...new Set(named)];
  const missing: string[] = [];
  for (let i = 0; i < pictures.length; i += 256) {
    const some = pictures.slice(i, i + 256);
    const found = await Promise.all(
      some.map((picture) =>
        access(picture).then(
          () => true,
          () => false,
        ),
      ),
    );
    missing.push(...some.filter((_, k) => !found[k]));
  }
  if (missing.length) {
    const few = missing.slice(0, 4).join('\n  ');
    const more = missing.length > 4 ? `\n  and ${missing.length - 4} more` : '';
    throw new ReflError('ERR_FILE', `${path} names ${missing.length} pictures that are not there:\n  ${few}${more}`);
  }
}

/**
 * Reads what people chose, a line each, oldest first:
 *
 *     {"pair": "p7-01", "annotator": "ann", "choice": "a"}
 *
 * `choice` is a, b, tie, skip, or undo, which takes back what the annotator said of the pair before. A choice that stands
 * twice counts once. Throws ERR_DATA where an annotator contradicts themselves without taking anything back, and on pairs
 * that `comparisons` does not hold.
 */
export async function readChoices(
  path: string,
  comparisons: readonly Comparison[],
): Promise<Read<ReadonlyMap<string, Verdict>>> {
  const { lines, cut } = await readJsonLines(path);
  const notes = cutNote(path, cut);
  const known = new Set(comparisons.map(({ pair }) => pair));
  const said = new Map<string, Map<string, { choice: Choice; where: string }>>();
  for (const line of lines) {
    const [pair, annotator, choice] = ['pair', 'annotator', 'choice'].map((key) => textOf(line, key));
    if (!known.has(pair)) throw new ReflError('ERR_DATA', `${line.where}: there is no pair ${pair}`);
    if (choice !== 'undo' && !choices.includes(choice as Choice)) {
      throw new ReflError('ERR_DATA', `${line.where}: the choice must be ${choices.join(', ')} or undo, got ${choice}`);
    }
    const ofPair = said.get(pair) ?? new Map<string, { choice: Choice; where: string }>();
    said.set(pair, ofPair);
    const before = ofPair.get(annotator);
    if (choice === 'undo') ofPair.delete(annotator);
    else if (!before) ofPair.set(annotator, { choice: choice as Choice, where: line.where });
    else if (before.choice === choice) notes.push(`${line.where}: the choice of ${annotator} for ${pair} stands twice`);
    else {
      const both = `${annotator} chose ${before.choice} for ${pair} in ${before.where}, and ${choice} here`;
      throw new ReflError('ERR_DATA', `${line.where}: ${both}: take one back by "undo", or remove it`);
    }
  }
  const verdicts = new Map<string, Verdict>();
  for (const [pair, ofPair] of said) {
    const count = (choice: Choice): number => [...ofPair.values()].filter((c) => c.choice === choice).length;
    const annotators = [...ofPair].map(([annotator, { choice }]) => ({ annotator, choice }));
    if (ofPair.size) verdicts.set(pair, { a: count('a'), b: count('b'), ties: count('tie'), annotators });
  }
  return { value: verdicts, notes };
}
