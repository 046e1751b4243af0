import { choices, type Verdict } from '../data/comparisons.ts';

/** How two annotators agree on the pairs that both judged. */
export interface TwoAgree {
  readonly annotators: readonly [string, string];
  readonly pairs: number;
  /** Part of the pairs on which they chose the same of A, B and tie; NaN without pairs. */
  readonly share: number;
  /** Cohen's kappa; NaN without pairs, and where both always chose the same one thing, which says nothing. */
  readonly kappa: number;
}

/** How all annotators agree on the pairs that at least two of them judged. */
export interface AllAgree {
  readonly annotators: number;
  readonly pairs: number;
  /** Mean over pairs of the part of their couples of judgements that are the same; NaN without pairs. */
  readonly share: number;
  /** Fleiss' kappa; NaN as Cohen's. */
  readonly kappa: number;
}

export interface Agreement {
  readonly couples: readonly TwoAgree[];
  /** Only where there are three annotators or more. */
  readonly all?: AllAgree;
}

const kappaOf = (observed: number, expected: number): number =>
  expected < 1 ? (observed - expected) / (1 - expected) : Number.NaN;

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);
const mean = (values: readonly number[]): number => sum(values) / values.length;

/** How often each kind of judgement occurs. */
const countsOf = (judgements: readonly string[]): number[] =>
  choices.map((choice) => judgements.filter((judgement) => judgement === choice).length);

/** Cohen's kappa (1960) of two annotators' judgements of the same things: 1 is full agreement, 0 that of chance. */
export function cohenKappa(first: readonly string[], second: readonly string[]): number {
  const other = countsOf(second);
  const expected = sum(countsOf(first).map((count, k) => count * other[k])) / first.length ** 2;
  return kappaOf(mean(first.map((judgement, i) => Number(judgement === second[i]))), expected);
}

/**
 * Fleiss' kappa (1971): agreement of the couples of judgements of each thing, beyond that of chance. The number of judgements
 * may vary, of at least two; each thing counts the same then.
 */
export function fleissKappa(things: readonly (readonly string[])[]): { share: number; kappa: number } {
  const counts = things.map(countsOf);
  const share = mean(
    counts.map((count) => {
      const n = sum(count);
      return sum(count.map((c) => c * (c - 1))) / (n * (n - 1));
    }),
  );
  const totals = choices.map((_, k) => sum(counts.map((count) => count[k])));
  return { share, kappa: kappaOf(share, sum(totals.map((total) => (total / sum(totals)) ** 2))) };
}

/** How people agree on pairs. What somebody skipped is no judgement. */
export function agreementOf(verdicts: Iterable<Pick<Verdict, 'annotators'>>): Agreement {
  const judged = [...verdicts].map(({ annotators }) => annotators.filter(({ choice }) => choice !== 'skip'));
  const names = [...new Set(judged.flatMap((all) => all.map(({ annotator }) => annotator)))].sort();
  const of = (name: string) => judged.map((all) => all.find(({ annotator }) => annotator === name)?.choice);
  const by = names.map(of);
  const couples = names.flatMap((first, i) =>
    names.slice(i + 1).map((second, j): TwoAgree => {
      const both = by[i].flatMap((choice, k) => {
        const other = by[i + 1 + j][k];
        return choice && other ? [[choice, other] as const] : [];
      });
      const [one, two] = [both.map(([choice]) => choice), both.map(([, choice]) => choice)];
      const share = mean(both.map(([choice, other]) => Number(choice === other)));
      return { annotators: [first, second], pairs: both.length, share, kappa: cohenKappa(one, two) };
    }),
  );
  if (names.length < 3) return { couples };
  const several = judged.filter((all) => all.length > 1).map((all) => all.map(({ choice }) => choice));
  return { couples, all: { annotators: names.length, pairs: several.length, ...fleissKappa(several) } };
}
