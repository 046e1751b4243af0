// Small tables in float64 that the host works out: normal distributions of a few dozen features, and the gamma function.
import { ReflError } from '../errors.ts';

/** A normal distribution of d features: their mean [d] and covariance [d, d], row-major. */
export interface Normal {
  readonly mean: Float64Array;
  readonly covariance: Float64Array;
}

/**
 * The normal distribution that fits rows of features, with the unbiased covariance. A feature that is not a number is left out
 * of its own mean, and its row of the covariance. Throws ERR_IMAGE where less than two whole rows are left.
 */
export function fitNormal(rows: readonly Float64Array[]): Normal {
  const whole = rows.filter((row) => row.every(Number.isFinite));
  if (whole.length < 2) throw new ReflError('ERR_IMAGE', 'it has less than two blocks with any texture');
  const d = rows[0].length;
  const meanOf = (of: readonly Float64Array[]): Float64Array =>
    Float64Array.from({ length: d }, (_, i) => {
      const values = of.map((row) => row[i]).filter(Number.isFinite);
      return values.reduce((a, b) => a + b) / values.length;
    });
  const centre = meanOf(whole);
  const covariance = new Float64Array(d * d);
  for (const row of whole) {
    for (let i = 0; i < d; i++) {
      for (let j = 0; j < d; j++) covariance[i * d + j] += (row[i] - centre[i]) * (row[j] - centre[j]);
    }
  }
  return { mean: meanOf(rows), covariance: covariance.map((v) => v / (whole.length - 1)) };
}

/**
 * Mahalanobis distance of the means under the mean of the covariances, sqrt((m1 - m2)^T ((S1 + S2) / 2)^-1 (m1 - m2)), by
 * Cholesky's decomposition. Throws ERR_OPTION where the mean covariance is not positive definite.
 */
export function normalDistance(a: Normal, b: Normal): number {
  const d = a.mean.length;
  const lower = new Float64Array(d * d);
  const solved = new Float64Array(d);
  let total = 0;
  for (let i = 0; i < d; i++) {
    for (let j = 0; j <= i; j++) {
      let rest = (a.covariance[i * d + j] + b.covariance[i * d + j]) / 2;
      for (let k = 0; k < j; k++) rest -= lower[i * d + k] * lower[j * d + k];
      if (i === j && !(rest > 0)) throw new ReflError('ERR_OPTION', 'the statistics are singular');
      lower[i * d + j] = i === j ? Math.sqrt(rest) : rest / lower[j * d + j];
    }
    // Forward substitution: the squared length of L^-1 (m1 - m2) is the form.
    let rest = a.mean[i] - b.mean[i];
    for (let k = 0; k < i; k++) rest -= lower[i * d + k] * solved[k];
    solved[i] = rest / lower[i * d + i];
    total += solved[i] ** 2;
  }
  return Math.sqrt(total);
}

/** Lanczos's coefficients for g = 7 and nine terms. */
const lanczos = [
  0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
  12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
];

/** The gamma function of x > 0 (Lanczos 1964), to 14 digits. */
export function gamma(x: number): number {
  if (x < 0.5) return Math.PI / (Math.sin(Math.PI * x) * gamma(1 - x));
  const t = x + 6.5;
  const series = lanczos.reduce((total, c, i) => total + (i ? c / (x - 1 + i) : c), 0);
  return Math.sqrt(2 * Math.PI) * t ** (x - 0.5) * Math.exp(-t) * series;
}
