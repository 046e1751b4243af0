import { test } from 'uvu';
import * as assert from 'uvu/assert';
import {
  type FeatureSet,
  type FeatureStatistics,
  frechetDistance,
  readFeatureStatistics,
} from '../../lib/metrics/fid.ts';
import { random } from '../support/random.ts';
import { rejects, withFiles } from './support.ts';

/** Uniform on [-1, 1). */
function noise(count: number, seed: number): number[] {
  const { next } = random(seed);
  return Array.from({ length: count }, () => 2 * next() - 1);
}

/** Pairs of numbers, correlated and scaled, whose covariance is far from a multiple of the identity. */
function pairs(count: number, seed: number, [a, b, c]: [number, number, number]): FeatureSet {
  const drawn = noise(2 * count, seed);
  const values = drawn.map((v, i) => (i % 2 ? b * drawn[i - 1] + c * v : a * v));
  return { width: 2, values: Float32Array.from(values) };
}

function statistics({ values }: FeatureSet): { mean: number[]; cov: [xx: number, xy: number, yy: number] } {
  const count = values.length / 2;
  const column = (k: number): number[] => Array.from({ length: count }, (_, i) => values[2 * i + k]);
  const mean = [0, 1].map((k) => column(k).reduce((x, y) => x + y) / count);
  const moment = (j: number, k: number): number =>
    column(j).reduce((total, v, i) => total + (v - mean[j]) * (values[2 * i + k] - mean[k]), 0) / (count - 1);
  return { mean, cov: [moment(0, 0), moment(0, 1), moment(1, 1)] };
}

/** In two dimensions the trace of the root of a product P is sqrt(tr P + 2 sqrt(det P)). */
function closedForm(a: FeatureSet, b: FeatureSet): number {
  const [p, q] = [statistics(a), statistics(b)];
  const det = ([xx, xy, yy]: number[]): number => xx * yy - xy * xy;
  const trace = p.cov[0] * q.cov[0] + 2 * p.cov[1] * q.cov[1] + p.cov[2] * q.cov[2];
  const root = Math.sqrt(trace + 2 * Math.sqrt(det(p.cov) * det(q.cov)));
  const apart = p.mean.reduce((sum, v, i) => sum + (v - q.mean[i]) ** 2, 0);
  return apart + p.cov[0] + p.cov[2] + q.cov[0] + q.cov[2] - 2 * root;
}

test('the Frechet distance is its closed form in two dimensions', async () => {
  const a = pairs(40, 1, [1, 0.5, 0.1]);
  const b = pairs(25, 2, [0.3, -2, 1.5]);
  const expected = closedForm(a, b);
  const distance = await frechetDistance(a, b);
  assert.ok(Math.abs(distance - expected) < 1e-10 * expected, `${distance}, expected ${expected}`);
  assert.ok(Math.abs((await frechetDistance(b, a)) - distance) < 1e-10);
});

test('a nearly singular covariance keeps its digits', async () => {
  const a = pairs(30, 3, [1, 1, 1e-5]);
  const b = pairs(30, 4, [1, -1, 1e-4]);
  const expected = closedForm(a, b);
  assert.ok(Math.abs((await frechetDistance(a, b)) - expected) < 1e-8);
});

test('equal sets are 0 apart, also with fewer pictures than features, and a shift counts squared', async () => {
  const width = 64;
  const values = Float32Array.from(noise(5 * width, 5));
  const shifted = values.map((v) => v + 0.5);
  assert.ok(Math.abs(await frechetDistance({ width, values }, { width, values })) < 1e-9);
  const distance = await frechetDistance({ width, values }, { width, values: shifted });
  assert.ok(Math.abs(distance - width * 0.25) < 1e-5, `${distance}`);
});

test('sets without a spread leave the distance of their means', async () => {
  const still = (value: number): FeatureSet => ({ width: 3, values: new Float32Array(6).fill(value) });
  assert.is(await frechetDistance(still(1), still(3)), 12);
});

/** Features as what is published of them. */
function published(set: FeatureSet): FeatureStatistics {
  const { mean, cov } = statistics(set);
  return { mean: Float64Array.from(mean), covariance: Float64Array.of(cov[0], cov[1], cov[1], cov[2]) };
}

test('published statistics stand for the features they are of', async () => {
  const a = pairs(40, 1, [1, 0.5, 0.1]);
  const b = pairs(25, 2, [0.3, -2, 1.5]);
  const expected = await frechetDistance(a, b);
  for (const distance of [
    await frechetDistance(a, published(b)),
    await frechetDistance(published(a), b),
    await frechetDistance(published(a), published(b)),
  ]) {
    assert.ok(Math.abs(distance - expected) < 1e-10 * expected, `${distance}, expected ${expected}`);
  }
});

test('a singular covariance of many features, stored in float32, keeps the distance', async () => {
  const [width, count] = [48, 20];
  const set: FeatureSet = { width, values: Float32Array.from(noise(width * count, 7)) };
  const other: FeatureSet = { width, values: Float32Array.from(noise(width * 30, 8)) };
  const mean = Float64Array.from({ length: width }, (_, j) => {
    const column = Array.from({ length: count }, (_, i) => set.values[i * width + j]);
    return column.reduce((x, y) => x + y) / count;
  });
  const covariance = Float64Array.from({ length: width * width }, (_, k) => {
    const [i, j] = [Math.floor(k / width), k % width];
    let total = 0;
    for (let n = 0; n < count; n++) {
      total += (set.values[n * width + i] - mean[i]) * (set.values[n * width + j] - mean[j]);
    }
    return total / (count - 1);
  });
  const expected = await frechetDistance(set, other);
  const exact = await frechetDistance({ mean, covariance }, other);
  assert.ok(Math.abs(exact - expected) < 1e-6 * expected, `${exact}, expected ${expected}`);
  const rounded = await frechetDistance({ mean, covariance: covariance.map(Math.fround) }, other);
  assert.ok(Math.abs(rounded - expected) < 1e-3 * expected, `${rounded}, expected ${expected}`);
});

test('statistics come from the files of pytorch-fid and of others', async () => {
  await withFiles(async (write) => {
    const file = await write(
      new Map([
        ['mu', { dtype: 'F32', shape: [3] }],
        ['sigma', { dtype: 'F32', shape: [3, 3] }],
      ]),
    );
    assert.equal([...(await readFeatureStatistics(file.path)).mean], [0, 0, 0]);
    const others = await write(new Map([['mean', { dtype: 'F32', shape: [3] }]]));
    await rejects(readFeatureStatistics(others.path), 'ERR_WEIGHTS', /holds no mu and sigma, or mean and cov/);
  });
});

test('sets that do not fit and features that are no numbers are refused', async () => {
  const set = (width: number, ...values: number[]): FeatureSet => ({ width, values: Float32Array.from(values) });
  const refused = (a: FeatureSet, b: FeatureSet | FeatureStatistics, message: RegExp): Promise<void> =>
    rejects(frechetDistance(a, b), 'ERR_OPTION', message);
  await refused(set(1, 1, 2), set(2, 1, 2, 3, 4), /do not compare/);
  await refused(set(1, 1), set(1, 1, 2), /two pictures or more/);
  await refused(set(1, 1, Number.NaN), set(1, 1, 2), /not finite/);
  const matrix = (...covariance: number[]) => ({
    mean: new Float64Array(2),
    covariance: Float64Array.from(covariance),
  });
  await refused(set(2, 1, 2, 3, 4), matrix(1, 2, 2, 1), /no covariance/);
  await refused(set(2, 1, 2, 3, 4), matrix(0, 0, 0, 0), /no covariance/);
  await refused(set(2, 1, 2, 3, 4), matrix(Number.NaN, 0, 0, 1), /no covariance|not finite/);
});

test.run();
