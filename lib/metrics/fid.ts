import { setImmediate } from 'node:timers/promises';
import { ReflError } from '../errors.ts';
import { add, affine, cast, div, maximum, mul, sqrt, square, sub } from '../graph/ops/elementwise.ts';
import { matmul } from '../graph/ops/matmul.ts';
import { mean, sum } from '../graph/ops/reduce.ts';
import { resize } from '../graph/ops/resample.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { InceptionV3 } from '../models/inception.ts';
import { evaluate, openDevice, type Parameters } from '../runtime/index.ts';
import { readArrays } from '../weights/arrays.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import { renamed } from '../weights/rename.ts';

/**
 * Images as {@link InceptionV3} takes them in pytorch-fid: 299 x 299 pixels, bilinear without antialiasing, in [-1, 1].
 *
 * @param x [N, H, W, 3] in [0, 1]
 */
export const fidPreprocess = (x: Tensor): Tensor =>
  affine(resize(x, [InceptionV3.size, InceptionV3.size], { mode: 'bilinear' }), 2, -1);

/** Loads the network from pytorch-fid's file, frozen; its classifier is left aside. See {@link loadWeights}. */
export const loadInception = (parameters: Parameters, network: InceptionV3, file: WeightsFile): Promise<void> =>
  loadWeights(
    parameters,
    network,
    renamed(file, (key) => (/^(fc|AuxLogits)\./.test(key) ? undefined : key)),
    { frozen: true },
  );

/** Features of pictures, `width` numbers each, one picture after another. */
export interface FeatureSet {
  readonly width: number;
  readonly values: Float32Array;
}

/** The mean [D] and the covariance [D, D] of features, as they are published for large sets of pictures. */
export interface FeatureStatistics {
  readonly mean: Float64Array;
  readonly covariance: Float64Array;
}

/** Names of the mean and the covariance in pytorch-fid's files, and in those of BasicSR's kind. */
const names = [
  ['mu', 'sigma'],
  ['mean', 'cov'],
];

/** Reads published statistics: pytorch-fid's .npz, or any file with a mean and a covariance. Throws ERR_WEIGHTS for others. */
export async function readFeatureStatistics(path: string): Promise<FeatureStatistics> {
  const arrays = await readArrays(path);
  const found = names.find((pair) => pair.every((name) => arrays.has(name)));
  if (!found)
    throw new ReflError('ERR_WEIGHTS', `${path}: it holds no ${names.map((n) => n.join(' and ')).join(', or ')}`);
  const [mean, covariance] = found.map((name) => arrays.get(name)!.values);
  if (covariance.length !== mean.length ** 2) {
    throw new ReflError(
      'ERR_WEIGHTS',
      `${path}: ${covariance.length} covariances do not belong to ${mean.length} means`,
    );
  }
  return { mean, covariance };
}

/** Steps of the iteration below in one program, and how often it runs. */
const [steps, rounds] = [8, 8];

/**
 * Frechet distance of the normal distributions that fit two sets of features (Heusel et al. 2017): |m1 - m2|^2 +
 * tr(S1 + S2 - 2 (S1 S2)^(1/2)), with the unbiased covariances S, in float64. A set is the features of two pictures or more, or
 * statistics. Its bias for few pictures is the formula's own, so compare only distances of equally many. Throws ERR_OPTION for sets that do
 * not fit or are not finite, and for a matrix that is no covariance.
 *
 * With centred features A and B over the square roots of their counts less one, S1 = A^T A and S2 = B^T B, and the trace of
 * the root is the sum of the singular values of M = A B^T: no covariance is formed, whose root would lose half of the digits
 * where it is singular, as it is with fewer pictures than features. A covariance that is given is factored into such a B. The sum is tr(U^T
 * M), where U is the polar factor of M, to which X <- (3 X - X X^T X) / 2 leads from M / |M| (Bjorck and Bowie 1971). Each step takes a
 * singular value below 1 closer to 1, a small one by half of itself; after 64 all above 5e-12 of |M| have come there, and the rest add no
 * more than they are.
 */
export async function frechetDistance(
  a: FeatureSet | FeatureStatistics,
  b: FeatureSet | FeatureStatistics,
  { signal }: { signal?: AbortSignal } = {},
): Promise<number> {
  const sides = [await sideOf(a, signal), await sideOf(b, signal)].sort((x, y) => x.rows - y.rows);
  const [few, many] = sides; // products of the smaller one are smaller
  if (few.width !== many.width) {
    throw new ReflError('ERR_OPTION', `features of ${few.width} and of ${many.width} do not compare`);
  }
  // Float64 is the CPU's.
  using cpu = await openDevice('cpu');
  const setup = await evaluate(cpu, prepare(few, many), { ...few.feeds('few'), ...many.feeds('many') });
  const [distance, traces] = [setup.distance[0], setup.traces[0]];
  if (!Number.isFinite(distance + traces)) throw new ReflError('ERR_OPTION', 'some features are not finite');
  const shape = [few.rows, many.rows];
  const product = input('product', shape, 'f64');
  let x = input('x', shape, 'f64');
  const feeds: Record<string, Float64Array> = {
    product: setup.product as Float64Array,
    x: setup.start as Float64Array,
  };
  for (let i = 0; i < steps; i++) x = sub(affine(x, 1.5), matmul(matmul(affine(x, 0.5), x, { transposeB: true }), x));
  using program = await cpu.compile({ outputs: { next: x, root: sum(mul(x, product)) } });
  let root = 0;
  for (let round = 0; round < rounds; round++) {
    const values = await program.run(feeds, { signal });
    feeds.x = values.next as Float64Array;
    root = values.root[0];
  }
  return distance + traces - 2 * root;
}

/** One of both sets: its mean [1, D], and rows [n, D] whose products with themselves add up to its covariance. */
interface Side {
  readonly width: number;
  readonly rows: number;
  tensors(name: string): { mean: Tensor; rows: Tensor };
  feeds(name: string): Record<string, Float32Array | Float64Array>;
}

async function sideOf(set: FeatureSet | FeatureStatistics, signal?: AbortSignal): Promise<Side> {
  if ('values' in set) {
    const { width, values } = set;
    const count = values.length / width;
    if (!(Number.isInteger(count) && count > 1)) {
      throw new ReflError('ERR_OPTION', `a Frechet distance needs two pictures or more a set, got ${count}`);
    }
    const tensors = (name: string): { mean: Tensor; rows: Tensor } => {
      const x = cast(input(name, [count, width]), 'f64');
      const middle = mean(x, [0], true);
      return { mean: middle, rows: affine(sub(x, middle), 1 / Math.sqrt(count - 1)) };
    };
    return { width, rows: count, tensors, feeds: (name) => ({ [name]: values }) };
  }
  const width = set.mean.length;
  const factor = await factorOf(set.covariance, width, signal);
  const rows = factor.length / width;
  return {
    width,
    rows,
    tensors: (name) => ({
      mean: input(`${name}.mean`, [1, width], 'f64'),
      rows: input(`${name}.rows`, [rows, width], 'f64'),
    }),
    feeds: (name) => ({ [`${name}.mean`]: set.mean, [`${name}.rows`]: factor }),
  };
}

/**
 * Rows B [r, D] with B^T B = S, by Cholesky's decomposition that takes the largest rest first: it ends where a singular covariance
 * has no more, and is stable there (Higham 1990). 2048 features take seconds, in pieces between which events have their turn.
 */
async function factorOf(covariance: Float64Array, width: number, signal?: AbortSignal): Promise<Float64Array> {
  const rest = Float64Array.from({ length: width }, (_, i) => covariance[i * width + i]);
  const largest = (): number => rest.reduce((best, v, i) => (v > rest[best] ? i : best), 0);
  const scale = rest[largest()];
  const rows = new Float64Array(width * width);
  let rank = 0;
  for (let p = largest(); rank < width && rest[p] > width * Number.EPSILON * scale; p = largest()) {
    await setImmediate(undefined, { signal });
    const row = rows.subarray(rank * width, (rank + 1) * width);
    row.set(covariance.subarray(p * width, (p + 1) * width));
    for (let k = 0; k < rank; k++) {
      const known = rows.subarray(k * width, (k + 1) * width);
      const share = known[p];
      for (let j = 0; j < width; j++) row[j] -= share * known[j];
    }
    const pivot = Math.sqrt(rest[p]);
    for (let j = 0; j < width; j++) {
      row[j] /= pivot;
      rest[j] -= row[j] ** 2;
    }
    rest[p] = 0;
    rank++;
  }
  // Statistics that were stored in float32 are off by 1e-7.
  if (!(rank > 0 && rest.every((v) => v >= -1e-5 * scale))) {
    throw new ReflError('ERR_OPTION', 'the statistics hold no covariance: it has negative variances, or none');
  }
  return rows.subarray(0, rank * width);
}

/** The squared distance of the means, the sum of both traces, M and M / |M|. */
function prepare(few: Side, many: Side): Record<string, Tensor> {
  const [a, b] = [few.tensors('few'), many.tensors('many')];
  const product = matmul(a.rows, b.rows, { transposeB: true });
  const length = maximum(sqrt(sum(square(product))), 1e-300);
  return {
    distance: sum(square(sub(a.mean, b.mean))),
    traces: add(sum(square(a.rows)), sum(square(b.rows))),
    product,
    start: div(product, length),
  };
}
