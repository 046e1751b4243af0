import { createRequire } from 'node:module';
import type SVM from 'libsvm-js/asm.js';
import { ReflError } from '../errors.ts';

/** Subtracts a mean and divides by a deviation, one of each per feature. */
export class Scaler {
  readonly mean: readonly number[];
  readonly scale: readonly number[];

  constructor(mean: readonly number[], scale: readonly number[]) {
    this.mean = mean;
    this.scale = scale;
  }

  /** Means and population deviations of the rows. A feature that never varies is only centred, as scikit-learn does. */
  static fit(rows: readonly (readonly number[])[]): Scaler {
    const mean = rows[0].map((_, k) => rows.reduce((sum, row) => sum + row[k], 0) / rows.length);
    const variance = mean.map((m, k) => rows.reduce((sum, row) => sum + (row[k] - m) ** 2, 0) / rows.length);
    return new Scaler(
      mean,
      variance.map((v) => (v > 0 ? Math.sqrt(v) : 1)),
    );
  }

  apply(row: readonly number[]): number[] {
    return row.map((v, k) => (v - this.mean[k]) / this.scale[k]);
  }
}

export interface SvmOptions {
  /** The price of a margin's violation. */
  readonly cost: number;
  /** Of the kernel exp(-gamma |a - b|^2). */
  readonly gamma: number;
  /** How far from the optimum's conditions the solver may stop. */
  readonly tolerance?: number;
}

/** A trained classifier: decision(x) = sum of coefficients times exp(-gamma |x - vector|^2), plus the intercept. */
export interface SvmState {
  readonly gamma: number;
  readonly intercept: number;
  readonly vectors: readonly (readonly number[])[];
  readonly coefficients: readonly number[];
}

/** Loading libsvm takes a tenth of a second: only who trains waits for it. */
const loadLibsvm = (): typeof SVM => createRequire(import.meta.url)('libsvm-js/asm.js');

/** An RBF support vector classifier of two classes, trained by libsvm. */
export class Svm {
  readonly state: SvmState;

  constructor(state: SvmState) {
    this.state = state;
  }

  /** Trains on rows labelled 0 or 1. Throws ERR_OPTION where only one of them occurs. */
  static train(rows: readonly (readonly number[])[], labels: readonly (0 | 1)[], options: SvmOptions): Svm {
    if (new Set(labels).size !== 2) {
      throw new ReflError('ERR_OPTION', `all ${labels.length} labels are alike: a classifier needs both kinds`);
    }
    const { cost, gamma, tolerance = 1e-6 } = options;
    const Libsvm = loadLibsvm();
    const { C_SVC, RBF } = { ...Libsvm.SVM_TYPES, ...Libsvm.KERNEL_TYPES };
    const svm = new Libsvm({ type: C_SVC, kernel: RBF, cost, gamma, tolerance, quiet: true });
    try {
      svm.train(rows, labels);
      // libsvm calls the class of the first row positive.
      const sign = labels[0] === 1 ? 1 : -1;
      const text = svm.serializeModel();
      const lines = text
        .slice(text.indexOf('\nSV\n') + 4)
        .trim()
        .split('\n');
      return new Svm({
        gamma,
        intercept: -sign * Number(/^rho (\S+)$/m.exec(text)![1]),
        // The text has eight digits of the vectors; the rows have them all.
        vectors: svm.getSVIndices().map((i) => rows[i]),
        coefficients: lines.map((line) => sign * Number(line.split(' ', 1)[0])),
      });
    } finally {
      svm.free();
    }
  }

  /** Above 0 for class 1. */
  decision(row: readonly number[]): number {
    const { gamma, intercept, vectors, coefficients } = this.state;
    return vectors.reduce((sum, vector, i) => {
      const distance = vector.reduce((total, v, k) => total + (v - row[k]) ** 2, 0);
      return sum + coefficients[i] * Math.exp(-gamma * distance);
    }, intercept);
  }
}
