import { setImmediate } from 'node:timers/promises';
import { Draws } from '../data/draws.ts';
import { ReflError } from '../errors.ts';
import { type Share, wilson } from '../eval/interval.ts';
import { foldsOf, holdOut } from './people.ts';
import { agreement, fitSlope, isDecided, logistic, logLoss, PreferenceSvm, type Sample } from './preference_svm.ts';

export interface SearchOptions {
  /** Prices of a margin's violation to try. */
  readonly costs: readonly number[];
  /** Factors of the kernel's exponent to try. */
  readonly gammas: readonly number[];
  readonly folds: number;
  /** The part of the people that is held out altogether, to judge the finished classifier by; or their names. */
  readonly holdout: number | readonly string[];
  readonly seed: number;
}

export interface SearchEvents {
  /** Ends the search between two trainings, with the signal's reason. */
  readonly signal?: AbortSignal;
  /** Called after every training with how many are done. */
  readonly onTrained?: (done: number, total: number) => void;
}

/** What a metric contributes. */
export interface MetricReport {
  readonly name: string;
  /** By how much the accuracy falls where the metric's values are exchanged among the pairs of a fold, both of a pair together. */
  readonly importance: number;
  /** How often people prefer the picture with the larger value (or the smaller, where that is more often), decided pairs only. */
  readonly alone: Share;
  readonly better: 'higher' | 'lower';
}

export interface SearchReport {
  readonly people: number;
  /** Pairs with votes, and how many of them are decided. */
  readonly pairs: number;
  readonly decided: number;
  readonly cost: number;
  readonly gamma: number;
  readonly slope: number;
  readonly vectors: number;
  /** On each fold, by a classifier of the others: what cost and gamma were chosen by, so a little too kind. */
  readonly validation: Share & { readonly folds: number; readonly logLoss: number };
  /** On held-out people. */
  readonly heldOut: Share & { readonly people: number; readonly logLoss: number };
  readonly grid: readonly { readonly cost: number; readonly gamma: number; readonly accuracy: number }[];
  /** The most important first. */
  readonly metrics: readonly MetricReport[];
}

export interface SearchResult {
  readonly svm: PreferenceSvm;
  readonly heldOut: readonly string[];
  readonly report: SearchReport;
}

/** Trials of each metric's importance. */
const shuffles = 10;

/**
 * Trains a preference classifier: holds people out, finds the cost and gamma that agree most often with people in
 * cross-validation (folds keep people whole; the smaller cost and gamma where two are even), fits probabilities to the margins
 * of that validation, trains on all that was not held out and judges the result by what was. Throws ERR_OPTION where the
 * data are too few.
 */
export async function searchPreference(
  metrics: readonly string[],
  samples: readonly Sample[],
  options: SearchOptions,
  { signal, onTrained }: SearchEvents = {},
): Promise<SearchResult> {
  const { folds, holdout, seed } = options;
  const [costs, gammas] = [ascending('cost', options.costs), ascending('gamma', options.gammas)];
  checkBothKinds(samples);
  const people = samples.filter(isDecided).map(({ person }) => person);
  const heldOut = typeof holdout === 'number' ? holdOut(people, holdout, seed) : new Set(holdout);
  const training = samples.filter(({ person }) => !heldOut.has(person));
  const testing = samples.filter((sample) => heldOut.has(sample.person));
  const foldOf = foldsOf(
    training.map(({ person }) => person),
    folds,
    seed,
  );

  const total = costs.length * gammas.length * folds + 1;
  let trained = 0;
  const train = async (some: readonly Sample[], point: { cost: number; gamma: number }): Promise<PreferenceSvm> => {
    // libsvm does not come back before it is done: between two trainings signals and timers have their turn.
    await setImmediate();
    signal?.throwIfAborted();
    const svm = PreferenceSvm.train(some, point);
    onTrained?.(++trained, total);
    return svm;
  };

  let best: { cost: number; gamma: number; accuracy: number; svms: PreferenceSvm[]; margins: number[] } | undefined;
  const grid: { cost: number; gamma: number; accuracy: number }[] = [];
  for (const cost of costs) {
    for (const gamma of gammas) {
      const svms: PreferenceSvm[] = [];
      for (let fold = 0; fold < folds; fold++) {
        svms.push(
          await train(
            training.filter((_, i) => foldOf[i] !== fold),
            { cost, gamma },
          ),
        );
      }
      const margins = training.map(({ a, b }, i) => svms[foldOf[i]].margin(a, b));
      const accuracy = accuracyOf(margins, training).share;
      grid.push({ cost, gamma, accuracy });
      if (!best || accuracy > best.accuracy) best = { cost, gamma, accuracy, svms, margins };
    }
  }
  const { cost, gamma, svms, margins } = best!;
  const shares = training.map(({ share }) => share);
  const slope = fitSlope(margins, shares);
  const svm = (await train(training, { cost, gamma })).calibrated(slope);
  const judged = testing.map(({ a, b }) => svm.margin(a, b));
  return {
    svm,
    heldOut: [...heldOut].sort(),
    report: {
      people: new Set(samples.map(({ person }) => person)).size,
      pairs: samples.length,
      decided: samples.filter(isDecided).length,
      cost,
      gamma,
      slope,
      vectors: svm.state.svm.vectors.length,
      validation: {
        ...accuracyOf(margins, training),
        folds,
        logLoss: logLoss(
          margins.map((margin) => logistic(slope * margin)),
          shares,
        ),
      },
      heldOut: {
        ...accuracyOf(judged, testing),
        people: heldOut.size,
        logLoss: logLoss(
          judged.map((margin) => logistic(slope * margin)),
          testing.map(({ share }) => share),
        ),
      },
      grid,
      metrics: reportMetrics(metrics, training, foldOf, svms, seed),
    },
  };
}

function ascending(name: string, values: readonly number[]): number[] {
  if (!values.length || !values.every((v) => v > 0 && Number.isFinite(v))) {
    throw new ReflError('ERR_OPTION', `${name} must be above 0, got ${values.join(' ') || 'nothing'}`);
  }
  return [...new Set(values)].sort((a, b) => a - b);
}

/** Both orders of a pair always make both classes: what must differ is the pairs themselves. */
function checkBothKinds(samples: readonly Sample[]): void {
  const decided = samples.filter(isDecided);
  const first = decided.filter(({ share }) => share > 0.5).length;
  if (decided.length && first && first < decided.length) return;
  const found = decided.length
    ? `all ${decided.length} decided pairs go to ${first ? 'A' : 'B'}`
    : 'no pair is decided';
  throw new ReflError(
    'ERR_OPTION',
    `${found}: choices of both kinds are needed (were pictures shown in random order?)`,
  );
}

function accuracyOf(margins: readonly number[], samples: readonly Sample[]): Share {
  const scores = samples.flatMap((sample, i) => (isDecided(sample) ? [agreement(margins[i], sample)] : []));
  return wilson(
    scores.reduce((sum, score) => sum + score, 0),
    scores.length,
  );
}

function reportMetrics(
  names: readonly string[],
  samples: readonly Sample[],
  foldOf: readonly number[],
  svms: readonly PreferenceSvm[],
  seed: number,
): MetricReport[] {
  const accuracy = (a: (i: number) => readonly number[], b: (i: number) => readonly number[]): number =>
    accuracyOf(
      samples.map((_, i) => svms[foldOf[i]].margin(a(i), b(i))),
      samples,
    ).share;
  const whole = accuracy(
    (i) => samples[i].a,
    (i) => samples[i].b,
  );
  const reports = names.map((name, k): MetricReport => {
    let lost = 0;
    for (let trial = 0; trial < shuffles; trial++) {
      const from = shuffledWithin(foldOf, new Draws(seed, k, trial));
      const exchanged = (side: 'a' | 'b') => (i: number) => samples[i][side].with(k, samples[from[i]][side][k]);
      lost += whole - accuracy(exchanged('a'), exchanged('b'));
    }
    const { share, correct, count } = accuracyOf(
      samples.map(({ a, b }) => a[k] - b[k]),
      samples,
    );
    const better = share >= 0.5 ? 'higher' : 'lower';
    const alone = better === 'higher' ? wilson(correct, count) : wilson(count - correct, count);
    return { name, importance: lost / shuffles, alone, better };
  });
  return reports.sort((x, y) => y.importance - x.importance);
}

/** For every item another one of its fold, each once: Fisher and Yates. */
function shuffledWithin(foldOf: readonly number[], draws: Draws): number[] {
  const from = foldOf.map((_, i) => i);
  for (const fold of new Set(foldOf)) {
    const members = foldOf.flatMap((f, i) => (f === fold ? [i] : []));
    const values = [...members];
    for (let i = values.length - 1; i > 0; i--) {
      const j = draws.below(i + 1);
      [values[i], values[j]] = [values[j], values[i]];
    }
    for (const [i, member] of members.entries()) from[member] = values[i];
  }
  return from;
}
