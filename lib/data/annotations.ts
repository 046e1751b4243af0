import { createHash } from 'node:crypto';
import { dirname, resolve } from 'node:path';
import { ReflError } from '../errors.ts';
import { makeFolder } from '../image/files.ts';
import { type Choice, type Comparison, cutNote, readChoices, type Verdict } from './comparisons.ts';
import { Draws } from './draws.ts';
import { JsonLinesFile } from './jsonl.ts';

/** What somebody says of two pictures side by side, before it is known which of them is A. */
export const sides = ['left', 'right', 'tie', 'skip'] as const;
export type Side = (typeof sides)[number];

/** A pair as one annotator sees it. */
export interface Shown {
  readonly comparison: Comparison;
  /** Which of the pictures lies on the left. */
  readonly left: 'a' | 'b';
}

/** Where an annotator stands. */
export interface Standing {
  readonly annotator: string;
  readonly pairs: number;
  /** Pairs that were judged or skipped. */
  readonly done: number;
  readonly skipped: number;
  /** How often a picture was preferred, and how often the one on the left: far from half of them, and it was the side. */
  readonly decided: number;
  readonly leftChosen: number;
}

interface Said {
  readonly choice: Choice;
  readonly left?: 'a' | 'b';
}

/** What one annotator said, oldest first, and which pair they took back last. */
interface Person {
  readonly order: readonly Shown[];
  readonly said: Map<string, Said>;
  undone?: string;
}

export interface AnnotationOptions {
  /** The file of choices: made, or gone on with. */
  readonly out: string;
  /** Decides in which order an annotator sees the pairs, and which picture lies on which side. */
  readonly seed?: number;
}

/**
 * Pairs that people are asked about, and the file of what they choose:
 *
 *     {"pair": "p7-01", "annotator": "ann", "choice": "a", "left": "b", "seconds": 3.2, "seed": 0, "at": "2026-..."}
 *
 * A line is on the disk before the call that made it is over. `choice` is of the pair's A and B, whichever side they lay on.
 */
export class Annotations {
  readonly comparisons: readonly Comparison[];
  /** What was repaired when the file was opened, in words for the user. */
  readonly notes: readonly string[];
  readonly #file: JsonLinesFile;
  readonly #seed: number;
  readonly #byName: ReadonlyMap<string, Comparison>;
  readonly #people = new Map<string, Person>();
  #last: Promise<unknown> = Promise.resolve();

  private constructor(comparisons: readonly Comparison[], file: JsonLinesFile, seed: number, notes: readonly string[]) {
    this.comparisons = comparisons;
    this.notes = notes;
    this.#file = file;
    this.#seed = seed;
    this.#byName = new Map(comparisons.map((comparison) => [comparison.pair, comparison]));
    for (const { record } of file.lines) {
      const { pair, annotator, choice, left } = record as unknown as { pair: string; annotator: string } & Said;
      this.#note(annotator, pair, { choice, left });
    }
  }

  /**
   * Opens or makes a file of choices about some pairs. Throws ERR_FILE, also where another process writes it, ERR_DATA where its
   * lines make no sense, and ERR_OPTION.
   */
  static async open(comparisons: readonly Comparison[], { out, seed = 0 }: AnnotationOptions): Promise<Annotations> {
    if (!comparisons.length) throw new ReflError('ERR_DATA', 'there are no pairs to ask about');
    if (!Number.isSafeInteger(seed)) throw new ReflError('ERR_OPTION', `seed must be a whole number, got ${seed}`);
    await makeFolder(dirname(resolve(out)));
    const file = await JsonLinesFile.open(out);
    try {
      const { notes } = await readChoices(out, comparisons);
      return new Annotations(comparisons, file, seed, [...cutNote(out, file.cut), ...notes]);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** The pairs that an annotator has not judged yet, the next one first. */
  remaining(annotator: string): Shown[] {
    const { order, said, undone } = this.#person(annotator);
    const left = order.filter(({ comparison }) => !said.has(comparison.pair));
    // Whoever takes something back wants to see it again.
    const again = left.findIndex(({ comparison }) => comparison.pair === undone);
    return again > 0 ? [left[again], ...left.slice(0, again), ...left.slice(again + 1)] : left;
  }

  standing(annotator: string): Standing {
    const said = [...this.#person(annotator).said.values()];
    const decided = said.filter(({ choice, left }) => left && (choice === 'a' || choice === 'b'));
    return {
      annotator,
      pairs: this.comparisons.length,
      done: said.length,
      skipped: said.filter(({ choice }) => choice === 'skip').length,
      decided: decided.length,
      leftChosen: decided.filter(({ choice, left }) => choice === left).length,
    };
  }

  /** Everybody who said something, by name. */
  standings(): Standing[] {
    const names = [...this.#people].filter(([, { said }]) => said.size).map(([name]) => name);
    return names.sort().map((name) => this.standing(name));
  }

  /** What people said of each pair, as {@link readChoices} has it, without the counts. */
  verdicts(): Pick<Verdict, 'annotators'>[] {
    return this.comparisons.map(({ pair }) => ({
      annotators: [...this.#people].flatMap(([annotator, { said }]) => {
        const choice = said.get(pair)?.choice;
        return choice ? [{ annotator, choice }] : [];
      }),
    }));
  }

  /**
   * Writes what an annotator chose, after `seconds`. The same choice once more changes nothing: an answer may have been lost on its
   * way. Throws ERR_OPTION for names and pairs that are none, ERR_DATA where something else was chosen before, ERR_FILE.
   */
  choose(annotator: string, pair: string, side: Side, seconds?: number): Promise<void> {
    return this.#alone(async () => {
      checkName(annotator);
      const comparison = this.#byName.get(pair);
      if (!comparison) throw new ReflError('ERR_OPTION', `there is no pair ${pair}`);
      const left = this.#leftOf(annotator, comparison);
      const right = left === 'a' ? 'b' : 'a';
      const choice = side === 'left' ? left : side === 'right' ? right : side;
      const before = this.#person(annotator).said.get(pair);
      if (before?.choice === choice) return;
      if (before) throw new ReflError('ERR_DATA', `${annotator} judged the pair ${pair} before: take that back first`);
      await this.#append({ pair, annotator, choice, left, ...(seconds === undefined ? {} : { seconds }) });
      this.#note(annotator, pair, { choice, left });
    });
  }

  /** Takes back the annotator's last choice that stands. Returns its pair, or undefined where there is none. Throws ERR_FILE. */
  undo(annotator: string): Promise<string | undefined> {
    return this.#alone(async () => {
      const pair = [...this.#person(annotator).said.keys()].at(-1);
      if (pair === undefined) return undefined;
      await this.#append({ pair, annotator, choice: 'undo' });
      this.#note(annotator, pair, undefined);
      return pair;
    });
  }

  /** Waits for what is being written. Safe to call twice. */
  async close(): Promise<void> {
    await this.#last;
    await this.#file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** One change after the other: what it checks must still hold when it is written. */
  #alone<T>(change: () => Promise<T>): Promise<T> {
    const done = this.#last.then(change);
    this.#last = done.catch(() => {});
    return done;
  }

  #append(record: object): Promise<void> {
    return this.#file.append({ ...record, seed: this.#seed, at: new Date().toISOString() });
  }

  #note(annotator: string, pair: string, said: { choice: Choice | 'undo'; left?: 'a' | 'b' } | undefined): void {
    const person = this.#person(annotator);
    if (said && said.choice !== 'undo') {
      person.said.set(pair, { choice: said.choice, left: said.left });
      return;
    }
    person.said.delete(pair);
    person.undone = pair;
  }

  #person(annotator: string): Person {
    const known = this.#people.get(annotator);
    if (known) return known;
    const lots = new Map(this.comparisons.map(({ pair }) => [pair, this.#draws('order', annotator, pair).uniform()]));
    const sorted = [...this.comparisons].sort(
      (x, y) => lots.get(x.pair)! - lots.get(y.pair)! || (x.pair < y.pair ? -1 : 1),
    );
    const order = sorted.map((comparison) => ({ comparison, left: this.#leftOf(annotator, comparison) }));
    const person = { order, said: new Map() };
    this.#people.set(annotator, person);
    return person;
  }

  #leftOf(annotator: string, { pair }: Comparison): 'a' | 'b' {
    return this.#draws('side', annotator, pair).uniform() < 0.5 ? 'a' : 'b';
  }

  /** Depends on the seed and the names alone, so that more pairs or people change nothing for those that are there. */
  #draws(...names: readonly string[]): Draws {
    const hash = createHash('sha256').update(JSON.stringify(names)).digest();
    return new Draws(this.#seed, hash.readUInt32LE(0), hash.readUInt32LE(4));
  }
}

/** Throws ERR_OPTION for what is no name of a person. */
export function checkName(name: string): void {
  if (/^[^\p{C}\s]([^\p{C}]{0,58}[^\p{C}\s])?$/u.test(name)) return;
  throw new ReflError('ERR_OPTION', `a name must have 1 to 60 characters on one line, got ${JSON.stringify(name)}`);
}
