import { ReflError } from '../errors.ts';
import { add, affine, cast, div, maximum, mul, sqrt, square, sub } from '../graph/ops/elementwise.ts';
import { matmul } from '../graph/ops/matmul.ts';
import { mean, sum } from '../graph/ops/reduce.ts';
import { resize } from '../graph/ops/resample.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { InceptionV3 } from '../models/inception.ts';
import { evaluate, openDevice, type Parameters } from '../runtime/index.ts';
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

/** Steps of the iteration below in one program, and how often it runs. */
const [steps, rounds] = [8, 8];

/**
 * Frechet distance of the normal distributions that fit two sets of features, each of two pictures or more (Heusel et al.
 * 2017): |m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)), with the unbiased covariances S, in float64. Its bias for few pictures
 * is the formula's own, so compare only distances of equally many. Throws ERR_OPTION for sets that do not fit or are not finite.
 *
 * With centred features A and B over the square roots of their counts less one, S1 = A^T A and S2 = B^T B, and the trace of
 * the root is the sum of the singular values of M = A B^T: no covariance is formed, whose root would lose half of the digits
 * where it is singular, as it is with fewer pictures than features. The sum is tr(U^T M), where U is the polar factor of M, to
 * which X <- (3 X - X X^T X) / 2 leads from M / |M| (Bjorck and Bowie 1971). Each step takes a singular value below 1 closer to
 * 1, a small one by half of itself; after 64 all above 5e-12 of |M| have come there, and the rest add no more than they are.
 */
export async function frechetDistance(
  a: FeatureSet,
  b: FeatureSet,
  { signal }: { signal?: AbortSignal } = {},
): Promise<number> {
  const counts = [a, b].map(({ values, width }) => values.length / width);
  if (a.width !== b.width) throw new ReflError('ERR_OPTION', `features of ${a.width} and of ${b.width} do not compare`);
  if (!counts.every((count) => Number.isInteger(count) && count > 1)) {
    throw new ReflError(
      'ERR_OPTION',
      `a Frechet distance needs two pictures or more a set, got ${counts.join(' and ')}`,
    );
  }
  // Float64 is the CPU's; the smaller set's products are the smaller ones.
  using cpu = await openDevice('cpu');
  const [few, many] = counts[0] <= counts[1] ? [a, b] : [b, a];
  const setup = await evaluate(cpu, prepare(few, many), { few: few.values, many: many.values });
  const [distance, traces] = [setup.distance[0], setup.traces[0]];
  if (!Number.isFinite(distance + traces)) throw new ReflError('ERR_OPTION', 'some features are not finite');
  const shape = [few.values.length / few.width, many.values.length / many.width];
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

/** The squared distance of the means, the sum of both traces, M and M / |M|. */
function prepare(a: FeatureSet, b: FeatureSet): Record<string, Tensor> {
  const parts = [a, b].map(({ values, width }, i) => {
    const count = values.length / width;
    const x = cast(input(i ? 'many' : 'few', [count, width]), 'f64');
    const middle = mean(x, [0], true);
    return { middle, centred: affine(sub(x, middle), 1 / Math.sqrt(count - 1)) };
  });
  const [{ centred: left }, { centred: right }] = parts;
  const product = matmul(left, right, { transposeB: true });
  const length = maximum(sqrt(sum(square(product))), 1e-300);
  return {
    distance: sum(square(sub(parts[0].middle, parts[1].middle))),
    traces: parts.map(({ centred }) => sum(square(centred))).reduce(add),
    product,
    start: div(product, length),
  };
}
