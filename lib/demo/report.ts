import { join } from 'node:path';
import type { Verdict } from '../data/comparisons.ts';
import { type AgreementReport, compareWithPeople, type Judge } from '../eval/agreement.ts';
import type { Share } from '../eval/interval.ts';
import { writeAtomic } from '../image/files.ts';
import type { Label } from '../train/labels.ts';
import type { SearchReport } from '../train/preference_search.ts';
import { faceOf, restorerOf } from './candidates.ts';
import type { Input } from './inputs.ts';
import { pageOf } from './page.ts';
import type { DemoStage, FrmDemoSettings } from './settings.ts';

/** A figure beside what was aimed at. */
export interface Target {
  readonly what: string;
  readonly least: number;
  readonly found: Share;
  readonly reached: boolean;
}

export interface FrmReport {
  readonly rule: string;
  /** Degraded inputs, restorations of them, and pairs, by what they show. */
  readonly data: Readonly<Record<'train' | 'morph' | 'heldout', Counts>>;
  readonly metrics: readonly string[];
  readonly svm: SearchReport;
  /** On pairs of held-out people: the classifier, the reward model, and the order of the restorers on training people. */
  readonly agreement: AgreementReport;
  /** The same judges, from the quarter of pairs whose distances differ least to that where they differ most. */
  readonly byGap: readonly { readonly name: string; readonly quarters: readonly Share[] }[];
  readonly byPerson: readonly { readonly person: string; readonly frm: Share }[];
  /** Mean distance to the original on training people, the nearest first. */
  readonly restorers: readonly { readonly name: string; readonly distance: number }[];
  readonly targets: readonly Target[];
  readonly seconds: Readonly<Partial<Record<DemoStage, number>>>;
  readonly weights: string;
}

/** What {@link demoFrm} found, for the report. */
export interface FrmFindings {
  readonly out: string;
  readonly inputs: readonly Input[];
  readonly labels: readonly Label[];
  readonly verdicts: ReadonlyMap<string, Verdict>;
  readonly judge: Judge;
  readonly svm: SearchReport;
  readonly distanceOf: (picture: string) => number;
  readonly options: FrmDemoSettings;
  readonly seconds: Readonly<Partial<Record<DemoStage, number>>>;
  readonly weights: string;
}

interface Counts {
  readonly people: number;
  readonly inputs: number;
  readonly pictures: number;
  readonly pairs: number;
  /** Pairs that the rule labelled; the classifier labelled the others. */
  readonly chosen: number;
}

const rule =
  'No person chose anything here. Of two restorations the one counts as preferred whose features in the recognition network of ' +
  '@vladmandic/face-api are nearer to those of the original, which neither the classifier nor the reward model is told.';

/** Judges the classifier and the reward model on held-out people, and writes report.json and report.html. */
export async function reportFrm(findings: FrmFindings): Promise<FrmReport> {
  const { out, inputs, labels, verdicts, judge, svm, distanceOf, options, seconds, weights } = findings;
  const gapOf = ({ a, b }: Label): number => distanceOf(b) - distanceOf(a);
  const restorers = meanDistances(labels, distanceOf);
  const place = new Map(restorers.map(({ name, distance }) => [name, distance]));
  const ranking: Judge = {
    name: 'ranking',
    margin: ({ a, b }) => place.get(restorerOf(b))! - place.get(restorerOf(a))!,
  };
  const classifier: Judge = { name: 'svm', margin: ({ pair }) => margins.get(pair)! };
  const margins = new Map(labels.map(({ pair, margin }) => [pair, margin]));
  const agreement = compareWithPeople(labels, verdicts, [judge, ranking]);
  const byGap = compareWithPeople(
    labels.map((label) => ({ ...label, margin: gapOf(label) })),
    verdicts,
    [classifier, judge, ranking],
  ).judges.slice(1);
  const heldOut = labels.filter(({ split }) => split === 'heldout');
  const ofFrm = ({ judges }: Pick<AgreementReport, 'judges'>) => judges.find(({ name }) => name === judge.name)!;
  const byPerson = [...new Set(heldOut.map(({ person }) => person))].sort().map((person) => {
    const own = heldOut.filter((label) => label.person === person);
    return { person, frm: ofFrm(compareWithPeople(own, verdicts, [judge])).all };
  });
  const kindOf = new Map(inputs.map(({ id, kind }) => [id, kind]));
  const counts = (kind: 'train' | 'morph' | 'heldout'): Counts => {
    const own = inputs.filter((input) => input.kind === kind);
    const pairs = labels.filter(({ a }) => kindOf.get(faceOf(a)) === kind);
    return {
      people: new Set(own.map(({ person }) => person)).size,
      inputs: own.length,
      pictures: new Set(pairs.flatMap(({ a, b }) => [a, b])).size,
      pairs: pairs.length,
      chosen: pairs.filter(({ source }) => source === 'people').length,
    };
  };
  const target = (what: string, least: number, found: Share): Target => {
    const { correct, count, share, low, high } = found;
    return { what, least, found: { correct, count, share, low, high }, reached: share >= least };
  };
  const report: FrmReport = {
    rule,
    data: { train: counts('train'), morph: counts('morph'), heldout: counts('heldout') },
    metrics: options.metrics,
    svm,
    agreement,
    byGap,
    byPerson,
    restorers,
    targets: [
      target('the classifier on held-out people', 0.85, svm.heldOut),
      target('the reward model on held-out people', 0.85, ofFrm(agreement).all),
      target(
        'the reward model on the quarter nearest by the distances',
        0.6,
        ofFrm({ judges: byGap } as never).quarters[0],
      ),
      target('the reward model on the quarter nearest by the classifier', 0.6, ofFrm(agreement).quarters[0]),
    ],
    seconds,
    weights,
  };
  await writeAtomic(join(out, 'report.json'), Buffer.from(`${JSON.stringify(report, null, 1)}\n`));
  await writeAtomic(join(out, 'report.html'), Buffer.from(pageOf(report, findings)));
  return report;
}

/** Of pairs that were trained on. */
function meanDistances(labels: readonly Label[], distanceOf: (picture: string) => number): FrmReport['restorers'] {
  const pictures = new Set(labels.filter(({ split }) => split === 'train').flatMap(({ a, b }) => [a, b]));
  const sums = new Map<string, { total: number; count: number }>();
  for (const picture of pictures) {
    const sum = sums.get(restorerOf(picture)) ?? { total: 0, count: 0 };
    sum.total += distanceOf(picture);
    sum.count++;
    sums.set(restorerOf(picture), sum);
  }
  return [...sums]
    .map(([name, { total, count }]) => ({ name, distance: total / count }))
    .sort((x, y) => x.distance - y.distance);
}
