import type { Device } from '../../lib/runtime/index.ts';
import { Scaler, Svm } from '../../lib/train/svm.ts';
import type { Golden } from './golden.ts';
import { type Report, relativeError } from './report.ts';

/** Limits of ../shared/golden/README.md: libsvm's default tolerance moves the reference's own decisions by up to 6e-4. */
const limits = { scaler: 1e-6, tight: 1e-4, default: 2e-3 } as const;

interface Config {
  n_features: number;
  C: number;
  gamma: number;
}

export async function compareSvm(_: Device, golden: Golden, report: Report): Promise<void> {
  const { n_features, C, gamma } = golden.json<Config>('config');
  const rowsOf = async (part: string): Promise<number[][]> => {
    const values = [...(await golden.read(`in.${part}.x`))];
    const [rows] = golden.shape(`in.${part}.x`);
    return Array.from({ length: rows }, (_row, i) => values.slice(i * n_features, (i + 1) * n_features));
  };
  const train = await rowsOf('train');
  const scaler = Scaler.fit(train);
  for (const key of ['mean', 'scale'] as const) {
    const error = relativeError(scaler[key], await golden.read(`out.scaler.${key}`));
    report.add(`${golden.name} out.scaler.${key}`, error, limits.scaler);
  }
  const labels = [...(await golden.read('in.train.y'))] as (0 | 1)[];
  const scaled = train.map((row) => scaler.apply(row));
  const svm = Svm.train(scaled, labels, { cost: C, gamma, tolerance: 1e-8 });
  const parts = { train: scaled, test: (await rowsOf('test')).map((row) => scaler.apply(row)) };
  for (const kind of ['tight', 'default'] as const) {
    for (const [part, rows] of Object.entries(parts)) {
      const decisions = rows.map((row) => svm.decision(row));
      const error = relativeError(decisions, await golden.read(`out.${kind}.decision_${part}`), 1);
      report.add(`${golden.name} out.${kind}.decision_${part}`, error, limits[kind]);
    }
    const predicted = parts.test.map((row) => Number(svm.decision(row) > 0));
    const key = `out.${kind}.predict_test`;
    // The nearest decision lies 8e-4 from 0, farther than the limit of the tight ones.
    report.add(`${golden.name} ${key}`, relativeError(predicted, await golden.read(key), 1), 0);
  }
  const { vectors, coefficients, intercept } = svm.state;
  const index = vectors.map((vector) => scaled.indexOf(vector as number[]));
  // Support vectors in the order of the rows; the reference sorts them by class.
  const dense = (rows: ArrayLike<number>, values: ArrayLike<number>): number[] => {
    const all = new Array<number>(train.length).fill(0);
    Array.from(rows).forEach((row, i) => {
      all[row] = values[i];
    });
    return all;
  };
  const stored = await golden.read('out.tight.support_index');
  const expected = dense(stored, await golden.read('out.tight.dual_coef'));
  const support = (values: number[]): number[] => values.map((v) => Number(v !== 0));
  const ours = dense(index, coefficients);
  report.add(`${golden.name} out.tight.support_index`, relativeError(support(ours), support(expected), 1), 0);
  report.add(`${golden.name} out.tight.dual_coef`, relativeError(ours, expected, 1), limits.tight);
  const [offset] = await golden.read('out.tight.intercept');
  report.add(`${golden.name} out.tight.intercept`, Math.abs(intercept - offset), limits.tight);
}
