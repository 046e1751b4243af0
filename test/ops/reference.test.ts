// What the operator cases cannot show: a wrong permutation, window or weight whose adjoint is wrong to match passes a
// gradient check. Here the forward values of layout, pooling and normalisation cases meet plain index arithmetic, and
// resizing meets weights worked out by hand.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { reachable } from '../../lib/graph/grad.ts';
import { pixelShuffle, pixelUnshuffle, windowPartition, windowReverse } from '../../lib/graph/ops/layout.ts';
import { resize } from '../../lib/graph/ops/resample.ts';
import { input, type Shape, sizeOf, type Tensor } from '../../lib/graph/tensor.ts';
import { evaluate, openDevice, type Values } from '../../lib/runtime/index.ts';
import { close } from '../support/assert.ts';
import { type OpCase, uniforms, valuesOf } from '../support/opcase.ts';
import { cases as layoutCases } from './layout.cases.ts';
import { cases as normCases } from './norm.cases.ts';
import { cases as poolCases } from './pool.cases.ts';

type Index = readonly number[];
/** The element of a tensor at an index. */
type Read = (index: Index) => number;
type Attr = Record<string, never> & Record<string, unknown>;

const linear = (shape: Shape, index: Index): number => shape.reduce((at, extent, i) => at * extent + index[i], 0);

function unravel(shape: Shape, at: number): number[] {
  const index = new Array<number>(shape.length);
  for (let i = shape.length - 1; i >= 0; at = Math.floor(at / shape[i--])) index[i] = at % shape[i];
  return index;
}

/** All index tuples of `shape`, in row-major order. */
const positions = (shape: Shape): number[][] => Array.from({ length: sizeOf(shape) }, (_, i) => unravel(shape, i));

/** Where index i of a padded axis comes from; undefined for a zero. */
function padded(i: number, extent: number, mode: string): number | undefined {
  if (i >= 0 && i < extent) return i;
  if (mode === 'zero') return undefined;
  if (mode === 'replicate') return i < 0 ? 0 : extent - 1;
  return i < 0 ? -i : 2 * (extent - 1) - i;
}

const ints = (value: unknown): readonly number[] => value as readonly number[];

/** Reads of one output of a node, given reads of its inputs. */
type Rule = (inputs: Read[], shapes: Shape[], attrs: Attr, out: Shape) => Read;

const pool =
  (combine: (values: number[]) => number): Rule =>
  ([x], [shape], attrs) =>
  ([n, oy, ox, c]) => {
    const [kh, kw] = ints(attrs.kernel);
    const [sh, sw] = ints(attrs.stride);
    const [top, left] = ints(attrs.padding ?? [0, 0]);
    const inside = positions([kh, kw])
      .map(([dy, dx]) => [n, oy * sh - top + dy, ox * sw - left + dx, c])
      .filter((at) => at.every((v, i) => v >= 0 && v < shape[i]));
    return combine(inside.map(x));
  };

/** Normalises over the positions that `members` lists for an index; moments are kept under `key`. */
function normalise(x: Read, eps: number, key: (at: Index) => string, members: (at: Index) => Index[]): Read {
  const moments = new Map<string, { mean: number; deviation: number }>();
  return (at) => {
    const name = key(at);
    let found = moments.get(name);
    if (!found) {
      const values = members(at).map(x);
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      const variance = values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
      found = { mean, deviation: Math.sqrt(variance + eps) };
      moments.set(name, found);
    }
    return (x(at) - found.mean) / found.deviation;
  };
}

const rules: Record<string, Rule> = {
  reshape:
    ([x], [shape], _, out) =>
    (at) =>
      x(unravel(shape, linear(out, at))),
  transpose:
    ([x], [shape], { perm }) =>
    (at) =>
      x(shape.map((_, i) => at[ints(perm).indexOf(i)])),
  broadcastTo:
    ([x], [shape]) =>
    (at) =>
      x(shape.map((d, i) => (d === 1 ? 0 : at[at.length - shape.length + i]))),
  slice:
    ([x], _, { start }) =>
    (at) =>
      x(at.map((v, i) => v + ints(start)[i])),
  roll:
    ([x], [shape], { shifts }) =>
    (at) =>
      x(at.map((v, i) => (((v - ints(shifts)[i]) % shape[i]) + shape[i]) % shape[i])),
  pad:
    ([x], [shape], { before, mode }) =>
    (at) => {
      const from = at.map((v, i) => padded(v - ints(before)[i], shape[i], mode));
      return from.includes(undefined) ? 0 : x(from as number[]);
    },
  concat: (parts, shapes, attrs) => (at) => {
    const axis = Number(attrs.axis);
    let i = at[axis];
    let k = 0;
    while (i >= shapes[k][axis]) i -= shapes[k++][axis];
    return parts[k](at.map((v, j) => (j === axis ? i : v)));
  },
  avgPool2d: pool((values) => values.reduce((a, b) => a + b, 0) / values.length),
  maxPool2d: pool((values) => Math.max(...values)),
  groupNorm: ([x, gamma, beta], [shape], { groups, eps, silu }) => {
    const size = shape[shape.length - 1] / Number(groups);
    const groupOf = (at: Index) => Math.floor(at[at.length - 1] / size);
    const members = (at: Index) =>
      positions([...shape.slice(1, -1), size]).map((p) => [
        at[0],
        ...p.slice(0, -1),
        groupOf(at) * size + p[p.length - 1],
      ]);
    const normal = normalise(x, Number(eps), (at) => `${at[0]} ${groupOf(at)}`, members);
    return (at) => {
      const c = at.slice(-1);
      const u = normal(at) * gamma(c) + beta(c);
      return silu ? u / (1 + Math.exp(-u)) : u;
    };
  },
  layerNorm: ([x, gamma, beta], [shape], { eps }) => {
    const row = (at: Index) => at.slice(0, -1);
    const members = (at: Index) => positions(shape.slice(-1)).map(([c]) => [...row(at), c]);
    const normal = normalise(x, Number(eps), (at) => row(at).join(), members);
    return (at) => normal(at) * gamma(at.slice(-1)) + beta(at.slice(-1));
  },
};

/** The values of `t` by plain index arithmetic. */
function reference(t: Tensor, feeds: Values): number[] {
  const readers = new Map<Tensor, Read>();
  for (const node of reachable([t])) {
    const inputs = node.inputs as Tensor[];
    const out = node.outputs[0];
    const feed = node.leaf?.kind === 'input' ? feeds[node.leaf.name] : undefined;
    const shapes = inputs.map((x) => x.shape);
    const reads = inputs.map((x) => readers.get(x)!);
    readers.set(
      out,
      feed ? (at) => feed[linear(out.shape, at)] : rules[node.op](reads, shapes, node.attrs as Attr, out.shape),
    );
  }
  return positions(t.shape).map(readers.get(t)!);
}

const device = await openDevice('cpu');
test.after(() => device.dispose());

async function compare(c: OpCase): Promise<void> {
  const next = uniforms(c.name.length);
  const leaves = Object.fromEntries(
    Object.entries(c.inputs).map(([name, { shape, dtype }]) => [name, input(name, shape, dtype ?? 'f64')]),
  );
  const feeds = Object.fromEntries(Object.entries(c.inputs).map(([name, spec]) => [name, valuesOf(spec, 'f64', next)]));
  const outputs = Object.fromEntries([c.build(leaves)].flat().map((t, k) => [`out.${k}`, t]));
  const values = await evaluate(device, outputs, feeds);
  for (const [key, t] of Object.entries(outputs)) close(values[key], reference(t, feeds), 1e-12, key);
}

for (const c of [...layoutCases, ...poolCases, ...normCases]) {
  // The values of derivatives follow from the forward ones by the gradient check.
  if (rules[c.op]) test(`${c.op}: ${c.name}`, () => compare(c));
}

/** Asserts that `y`, made from x [2, 6, 4, 3], holds at `index` the element of x at `from(index)`, and `back` is x. */
async function rearranged(
  make: (x: Tensor) => { y: Tensor; back: Tensor },
  from: (index: Index) => Index,
): Promise<void> {
  const shape = [2, 6, 4, 3];
  const x = Float64Array.from({ length: sizeOf(shape) }, (_, i) => i);
  const made = make(input('x', shape, 'f64'));
  const { y, back } = await evaluate(device, made, { x });
  assert.equal(
    Array.from(y),
    positions(made.y.shape).map((index) => linear(shape, from(index))),
  );
  assert.equal(Array.from(back), Array.from(x));
}

test('pixelUnshuffle puts the pixel (dy, dx) of a block into channel c * r * r + dy * r + dx', () =>
  rearranged(
    (x) => {
      const y = pixelUnshuffle(x, 2);
      return { y, back: pixelShuffle(y, 2) };
    },
    ([n, i, j, k]) => [n, 2 * i + (Math.floor(k / 2) % 2), 2 * j + (k % 2), Math.floor(k / 4)],
  ));

test('windowPartition orders windows by image, row and column, and tokens by row and column', () =>
  rearranged(
    (x) => {
      const y = windowPartition(x, 2);
      return { y, back: windowReverse(y, 2, [6, 4]) };
    },
    ([window, token, c]) => {
      const [n, row, column] = unravel([2, 3, 2], window);
      return [n, 2 * row + Math.floor(token / 2), 2 * column + (token % 2), c];
    },
  ));

/** One row of pixels resized to `width`. */
async function resized(row: number[], width: number, options: Parameters<typeof resize>[2]): Promise<number[]> {
  const x = input('x', [1, 1, row.length, 1], 'f64');
  const { y } = await evaluate(device, { y: resize(x, [1, width], options) }, { x: Float64Array.from(row) });
  return Array.from(y);
}

test('bilinear: neighbours by distance between pixel centres, the border repeated', async () => {
  const y = await resized([0, 4, 8, 12], 8, { mode: 'bilinear' });
  close(y, [0, 1, 3, 5, 7, 9, 11, 12], 1e-14, 'twice as wide');
});

test('bilinear with antialias: a triangle as wide as the ratio to either side, cut at the border', async () => {
  const y = await resized([7, 0, 0, 8, 0, 0, 0, 0], 4, { mode: 'bilinear', antialias: true });
  // Inside, the weights are 1/8, 3/8, 3/8, 1/8; at the border 3/7, 3/7, 1/7.
  close(y, [3, 3, 1, 0], 1e-14, 'half as wide');
});

test('bicubic: the kernel with a = -0.75', async () => {
  const y = await resized([0, 0, 0, 1, 0, 0, 0], 14, { mode: 'bicubic' });
  // The kernel at 1.75, 1.25, 0.75 and 0.25, by its two cubics.
  const [far, near, side, center] = [-0.03515625, -0.10546875, 0.26171875, 0.87890625];
  close(y, [0, 0, 0, far, near, side, center, center, side, near, far, 0, 0, 0], 1e-14, 'twice as wide');
});

test('nearest: the pixel whose share of the row holds the left edge', async () => {
  assert.equal(await resized([1, 2, 3], 7, { mode: 'nearest' }), [1, 1, 1, 2, 2, 3, 3]);
  assert.equal(await resized([1, 2, 3, 4, 5], 3, { mode: 'nearest' }), [1, 2, 4]);
});

test.run();
