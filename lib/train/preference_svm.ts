import { ReflError } from '../errors.ts';
import { readBytes, writeAtomic } from '../image/files.ts';
import { Scaler, Svm, type SvmState } from './svm.ts';

/** A pair whose metrics are known, and the part of people's votes that A has. */
export interface Sample {
  readonly pair: string;
  readonly person: string;
  readonly a: readonly number[];
  readonly b: readonly number[];
  readonly share: number;
}

/** Pairs that people decided one way or the other: what a classifier learns from and is judged by. */
export const isDecided = ({ share }: Sample): boolean => share !== 0.5;

/** Whether a margin agrees with most people; half right where it says nothing. */
export const agreement = (margin: number, { share }: Pick<Sample, 'share'>): number =>
  margin === 0 ? 0.5 : Number(margin > 0 === share > 0.5);

export interface PreferenceState {
  readonly mean: readonly number[];
  readonly scale: readonly number[];
  readonly svm: SvmState;
  /** The probability that A is preferred is the logistic function of `slope` times the margin. */
  readonly slope: number;
}

/**
 * Which of two pictures people prefer, from some metrics of each: an RBF support vector classifier on the numbers of A and then
 * those of B, twelve in the paper. Every pair is learnt in both orders.
 */
export class PreferenceSvm {
  readonly state: PreferenceState;
  private readonly svm: Svm;
  private readonly scaler: Scaler;

  constructor(state: PreferenceState) {
    this.state = state;
    this.svm = new Svm(state.svm);
    this.scaler = new Scaler(state.mean, state.scale);
  }

  /** Standardises and trains on the decided ones of `samples`; `slope` is 1 until it is fitted. Throws ERR_OPTION. */
  static train(samples: readonly Sample[], options: { cost: number; gamma: number }): PreferenceSvm {
    const decided = samples.filter(isDecided);
    if (!decided.length) throw new ReflError('ERR_OPTION', 'no pair is decided one way or the other');
    const rows = decided.flatMap(({ a, b }) => [
      [...a, ...b],
      [...b, ...a],
    ]);
    const labels = decided.flatMap(({ share }): (0 | 1)[] => (share > 0.5 ? [1, 0] : [0, 1]));
    const { mean, scale } = Scaler.fit(rows);
    const scaler = new Scaler(mean, scale);
    const { state } = Svm.train(
      rows.map((row) => scaler.apply(row)),
      labels,
      options,
    );
    return new PreferenceSvm({ mean, scale, svm: state, slope: 1 });
  }

  /** Above 0 where A is preferred, and the more the clearer; exchanging A and B changes the sign alone. */
  margin(a: readonly number[], b: readonly number[]): number {
    const decide = (x: readonly number[], y: readonly number[]): number =>
      this.svm.decision(this.scaler.apply([...x, ...y]));
    return (decide(a, b) - decide(b, a)) / 2;
  }

  /** The probability that A is preferred. */
  probability(a: readonly number[], b: readonly number[]): number {
    return logistic(this.state.slope * this.margin(a, b));
  }

  /** The same with another slope. */
  calibrated(slope: number): PreferenceSvm {
    return new PreferenceSvm({ ...this.state, slope });
  }
}

export const logistic = (x: number): number => 1 / (1 + Math.exp(-x));

/**
 * Platt's calibration (2000) without an intercept, which both orders of each pair leave at 0: the slope at which
 * logistic(slope * margin) predicts the shares with the least cross entropy. The margins should be of pairs that their
 * classifiers have not seen. Shares are drawn in towards a half as Platt does, so that margins that err nowhere give no
 * infinite slope; it is 0 at least.
 */
export function fitSlope(margins: readonly number[], shares: readonly number[]): number {
  const targets = shares.map((share) => (shares.length * share + 1) / (shares.length + 2));
  // The derivative of a convex function: its sign brackets the minimum, and halving cannot fail.
  const derivative = (slope: number): number =>
    margins.reduce((sum, margin, i) => sum + margin * (logistic(slope * margin) - targets[i]), 0);
  if (derivative(0) >= 0) return 0;
  let [low, high] = [0, 1];
  while (derivative(high) < 0 && high < 1e6) [low, high] = [high, 2 * high];
  for (let i = 0; i < 60; i++) {
    const middle = (low + high) / 2;
    if (derivative(middle) < 0) low = middle;
    else high = middle;
  }
  return (low + high) / 2;
}

/** Mean cross entropy of probabilities and shares of votes, in nats: ln 2 where every probability is a half. */
export function logLoss(probabilities: readonly number[], shares: readonly number[]): number {
  const least = 1e-12;
  const term = (p: number, share: number): number =>
    -share * Math.log(Math.max(p, least)) - (1 - share) * Math.log(Math.max(1 - p, least));
  return probabilities.reduce((sum, p, i) => sum + term(p, shares[i]), 0) / probabilities.length;
}

const format = 'refl-native/preference-svm';

/** A classifier as its file holds it. */
export interface PreferenceModel {
  readonly svm: PreferenceSvm;
  /** Names of the metrics, in the order of the numbers. */
  readonly metrics: readonly string[];
  /** People whose pairs it has not seen, and nothing trained on its labels should. */
  readonly heldOut: readonly string[];
  /** What was found when it was trained. */
  readonly report: object;
}

/** Writes a classifier as one JSON file, atomically. */
export async function savePreferenceModel(
  path: string,
  { svm, metrics, heldOut, report }: PreferenceModel,
): Promise<void> {
  const text = JSON.stringify({ format, metrics, heldOut, ...svm.state, report });
  await writeAtomic(path, Buffer.from(`${text}\n`));
}

/** Reads what {@link savePreferenceModel} wrote. Throws ERR_FILE, and ERR_DATA where it is another file or damaged. */
export async function loadPreferenceModel(path: string): Promise<PreferenceModel> {
  const text = (await readBytes(path)).toString();
  try {
    const { format: found, metrics, heldOut, report, ...state } = JSON.parse(text);
    if (found !== format) throw new Error(`its format is ${found}, not ${format}`);
    checkState(state, 2 * metrics.length);
    if (![metrics, heldOut].every((list) => Array.isArray(list) && list.every((name) => typeof name === 'string'))) {
      throw new Error('names are missing');
    }
    return { svm: new PreferenceSvm(state), metrics, heldOut, report };
  } catch (cause) {
    throw new ReflError('ERR_DATA', `${path} holds no preference classifier: ${(cause as Error).message}`, { cause });
  }
}

function checkState({ mean, scale, svm, slope }: PreferenceState, width: number): void {
  const { gamma, intercept, vectors, coefficients } = svm;
  const rows = [mean, scale, ...vectors];
  if (!rows.every((row) => row.length === width && row.every(Number.isFinite))) throw new Error('numbers are missing');
  if (coefficients.length !== vectors.length || ![...coefficients, gamma, intercept, slope].every(Number.isFinite)) {
    throw new Error('coefficients are missing');
  }
}
