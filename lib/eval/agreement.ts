import type { Choice, Verdict } from '../data/comparisons.ts';
import { ReflError } from '../errors.ts';
import type { Label } from '../train/labels.ts';
import { agreement } from '../train/preference_svm.ts';
import { type Share, wilson } from './interval.ts';

/** Who or what orders pairs: above 0 where A is preferred. */
export interface Judge {
  readonly name: string;
  readonly margin: (label: Label) => number;
}

/** How often a judge orders pairs as people do. */
export interface JudgeReport {
  readonly name: string;
  readonly all: Share;
  /** By how close the classifier finds the pairs, the closest quarter first. */
  readonly quarters: readonly Share[];
  /** Against each annotator's own choices. */
  readonly annotators: readonly { readonly annotator: string; readonly share: Share }[];
  /** On the pairs that the classifier orders otherwise than people: how often the judge sides with people. */
  readonly disputed: Share;
}

export interface AgreementReport {
  /** Pairs of held-out people with votes, how many of them are decided, and how many people there are. */
  readonly pairs: number;
  readonly decided: number;
  readonly people: number;
  /** How often A was chosen, of the choices that were no ties: about a half where sides were drawn. */
  readonly first: Share;
  /** How often two annotators who both chose a side of a pair chose the same: no judge can be expected to do much better. */
  readonly among: Share;
  readonly judges: readonly JudgeReport[];
  /** The disputed pairs, those first of which the classifier is surest. */
  readonly disputed: readonly DisputedPair[];
}

export interface DisputedPair {
  readonly pair: string;
  readonly a: string;
  readonly b: string;
  readonly share: number;
  /** The classifier's. */
  readonly margin: number;
  /** Of the judges, by name. */
  readonly margins: Readonly<Record<string, number>>;
}

/**
 * Compares judges, and the classifier that made the labels, with people's choices about held-out people. Ties count for no
 * judge. Throws ERR_DATA where there is nothing to compare with.
 */
export function compareWithPeople(
  labels: readonly Label[],
  verdicts: ReadonlyMap<string, Verdict>,
  judges: readonly Judge[],
): AgreementReport {
  const held = labels.filter(({ split, source }) => split === 'heldout' && source === 'people');
  const decided = held.filter(({ share }) => share !== 0.5);
  if (!decided.length) throw new ReflError('ERR_DATA', 'people decided no pair of held-out people');
  const bySurety = [...decided].sort((x, y) => Math.abs(x.margin) - Math.abs(y.margin));
  const disputed = bySurety.filter((label) => agreement(label.margin, label) === 0).reverse();
  const chosen = held.flatMap((label) =>
    (verdicts.get(label.pair)?.annotators ?? []).flatMap(({ annotator, choice }) =>
      isSide(choice) ? [{ annotator, label: { ...label, share: choice === 'a' ? 1 : 0 } }] : [],
    ),
  );
  const names = [...new Set(chosen.map(({ annotator }) => annotator))].sort();
  const quarter = (k: number): Label[] =>
    bySurety.slice(Math.floor((k * bySurety.length) / 4), Math.floor(((k + 1) * bySurety.length) / 4));

  const report = ({ name, margin }: Judge): JudgeReport => {
    const of = (some: readonly Label[]): Share => shareOfAll(some.map((label) => agreement(margin(label), label)));
    return {
      name,
      all: of(decided),
      quarters: [0, 1, 2, 3].map((k) => of(quarter(k))),
      annotators: names.map((annotator) => ({
        annotator,
        share: of(chosen.filter((choice) => choice.annotator === annotator).map(({ label }) => label)),
      })),
      disputed: of(disputed),
    };
  };
  return {
    pairs: held.length,
    decided: decided.length,
    people: new Set(held.map(({ person }) => person)).size,
    first: shareOfAll(chosen.map(({ label }) => label.share)),
    among: shareOfAll(held.flatMap(({ pair }) => agreements(verdicts.get(pair)))),
    judges: [{ name: 'svm', margin: (label: Label) => label.margin }, ...judges].map(report),
    disputed: disputed.map((label) => {
      const { pair, a, b, share, margin } = label;
      return { pair, a, b, share, margin, margins: Object.fromEntries(judges.map((j) => [j.name, j.margin(label)])) };
    }),
  };
}

const isSide = (choice: Choice): boolean => choice === 'a' || choice === 'b';

const shareOfAll = (scores: readonly number[]): Share =>
  wilson(
    scores.reduce((sum, score) => sum + score, 0),
    scores.length,
  );

/** 1 for every two annotators who chose the same side of a pair, 0 for every two who did not. */
function agreements(verdict: Verdict | undefined): number[] {
  const sides = (verdict?.annotators ?? []).map(({ choice }) => choice).filter(isSide);
  return sides.flatMap((side, i) => sides.slice(i + 1).map((other) => Number(side === other)));
}
