import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { grad } from '../../lib/graph/grad.ts';
import { silu } from '../../lib/graph/ops/activation.ts';
import { add, cast, mul, neg, where } from '../../lib/graph/ops/elementwise.ts';
import { broadcastTo, concat, reshape, slice, transpose } from '../../lib/graph/ops/layout.ts';
import { linear } from '../../lib/graph/ops/matmul.ts';
import { layerNorm } from '../../lib/graph/ops/norm.ts';
import { accumulate, assign, ema } from '../../lib/graph/ops/optim.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { softmax } from '../../lib/graph/ops/softmax.ts';
import { type Graph, lower, type ProgramSpec } from '../../lib/graph/program.ts';
import {
  constant,
  emit,
  input,
  type Node,
  parameterLeaf,
  recompute,
  scope,
  type Tensor,
} from '../../lib/graph/tensor.ts';
import { random } from '../support/random.ts';
import { simulate } from '../support/simulate.ts';

const SIZE = 48;
const shapes = [[SIZE], [6, 8], [3, 16], [2, 3, 8], [1, SIZE]];

/** A random graph of views, in-place candidates, operators with several outputs, leaves of all kinds, and updates. */
function randomGraph(seed: number): Graph {
  const { int, pick, next } = random(seed);
  const shape = (): number[] => pick(shapes);
  const pool: Tensor[] = [input('a', shape()), input('b', shape()), parameterLeaf(shape(), 'f32')];
  pool.push(constant(new Float32Array(SIZE), [SIZE], 'f32'));
  // Recent tensors are read more often, as in a network; old ones now and then, as by a skip connection.
  const any = (): Tensor => (next() < 0.6 ? pool[int(Math.max(0, pool.length - 4), pool.length - 1)] : pick(pool));
  const as = (like: Tensor): Tensor => {
    const t = any();
    return t.shape.join() === like.shape.join() ? t : reshape(t, like.shape);
  };
  const twice = (x: Tensor): Tensor[] => {
    const y = concat([reshape(x, [SIZE]), reshape(any(), [SIZE])], 0);
    return [slice(y, [int(0, SIZE)], [SIZE])];
  };
  const normed = (x: Tensor): readonly Tensor[] => {
    const width = x.shape.at(-1)!;
    const affine = parameterLeaf([width], 'f32');
    return emit('layerNorm', [x, affine, affine], { eps: 1e-5 }).slice(0, 1);
  };
  const makers: ((x: Tensor) => readonly Tensor[])[] = [
    (x) => [neg(x)],
    (x) => [silu(x)],
    (x) => [reshape(x, shape())],
    (x) => [add(x, as(x))],
    (x) => [add(x, x)],
    (x) => [mul(x, reshape(x, x.shape))],
    (x) => [add(sum(x, [-1], true), x)],
    (x) => [where(as(x), x, as(x))],
    (x) => [
      transpose(
        x,
        x.shape.map((_, i) => x.rank - 1 - i),
      ),
    ],
    (x) => [broadcastTo(sum(x, undefined, false), x.shape)],
    (x) => [cast(neg(cast(x, 'f64')), 'f32')],
    twice,
    normed,
  ];
  const sized = (t: Tensor): boolean => t.size === SIZE;
  for (let i = int(1, 40); i > 0; i--) pool.push(...pick(makers)(any()).filter(sized));

  const outputs = Object.fromEntries(Array.from({ length: int(0, 5) }, (_, i) => [`out${i}`, any()]));
  const computed = pool.filter((t) => !t.node.leaf);
  const taps = Object.fromEntries(
    Array.from({ length: computed.length ? int(0, 3) : 0 }, (_, i) => [`tap${i}`, pick(computed)]),
  );
  const updates: Node[] = [];
  const one = input('one', [1]);
  for (let i = int(0, 3); i > 0; i--) {
    const target = parameterLeaf([SIZE], 'f32');
    const value = reshape(any(), [SIZE]);
    updates.push(pick([() => ema(one, one, [[target, value]]), () => assign(one, [[target, value]])])());
  }
  return { outputs, updates, taps };
}

const seeds = Array.from({ length: 400 }, (_, i) => i);

function checkSegments({ segments, nodes, firstUpdate }: ProgramSpec): void {
  assert.is(segments[0], nodes.length ? 0 : undefined);
  assert.ok(
    segments.every((start, i) => start < nodes.length && (i === 0 || start > segments[i - 1])),
    'segments are out of order',
  );
  if (firstUpdate < nodes.length) assert.is(segments.at(-1), firstUpdate, 'all updates make one segment');
}

test('in random graphs every read finds its tensor intact, planned or not', () => {
  for (const seed of seeds) {
    for (const plan of [true, false]) {
      const graph = randomGraph(seed);
      const spec = lower(graph, { plan });
      try {
        simulate(graph, spec);
        checkSegments(spec);
      } catch (error) {
        (error as Error).message += ` (seed ${seed}, plan ${plan})`;
        throw error;
      }
    }
  }
});

test('the check above sees a plan that is wrong', () => {
  let seen = 0;
  for (const seed of seeds.slice(0, 50)) {
    const graph = randomGraph(seed);
    const spec = lower(graph);
    const tensors = spec.tensors.map((t) => (t.slot < 0 ? { ...t, offset: 0 } : t));
    try {
      simulate(graph, { ...spec, tensors });
    } catch {
      seen++;
    }
  }
  assert.ok(seen > 35, `only ${seen} of 50 ruined plans were noticed`);
});

test('a plan never needs more bytes than a buffer for each tensor, and mostly far fewer', () => {
  let planned = 0;
  let spread = 0;
  for (const seed of seeds) {
    const graph = randomGraph(seed);
    const [a, b] = [lower(graph).arenaBytes, lower(graph, { plan: false }).arenaBytes];
    assert.ok(a <= b, `seed ${seed}`);
    planned += a;
    spread += b;
  }
  assert.ok(planned < 0.6 * spread);
});

test('gradients of random graphs are laid out soundly, with and without recompute', () => {
  const layer = (x: Tensor, k: number): Tensor => {
    const [g, b] = [parameterLeaf([8], 'f32'), parameterLeaf([8], 'f32')];
    const h = layerNorm(x, g, b, { eps: 1e-5 });
    return k % 3 === 0
      ? add(x, softmax(h))
      : k % 3 === 1
        ? mul(silu(h), x)
        : add(h, reshape(transpose(h, [1, 0]), [6, 8]));
  };
  for (const seed of seeds.slice(0, 60)) {
    const { int, next } = random(seed);
    const x = input('x', [6, 8]);
    let y = x;
    for (let k = int(1, 12); k > 0; k--) {
      const previous = y;
      y = next() < 0.5 ? recompute(() => layer(layer(previous, k), k + 1)) : layer(previous, k);
    }
    const graph = { outputs: { y, dx: grad(y, [x])[0] } };
    simulate(graph, lower(graph));
  }
});

test('lowering is a pure function', () => {
  for (const seed of seeds.slice(0, 50)) {
    const graph = randomGraph(seed);
    assert.equal(lower(graph), lower(graph));
  }
});

/** The arena offset of the output named `name`. */
const offsetOf = (spec: ProgramSpec, name: string): number =>
  spec.tensors[spec.outputs.find((o) => o.name === name)!.tensor].offset;

test('an operator takes over its input where that dies, and only there', () => {
  const x = input('x', [64]);
  const y = silu(neg(x));
  assert.is(lower({ outputs: { y } }).arenaBytes, 256, 'a chain runs in the bytes of its feed');
  const kept = lower({ outputs: { y, x } });
  assert.is(kept.arenaBytes, 512, 'a feed that is an output too must survive');
  assert.is.not(offsetOf(kept, 'x'), offsetOf(kept, 'y'));
});

test('a value read twice by one operator, or through a view, is not overwritten under the other read', () => {
  const x = input('x', [8, 8]);
  for (const y of [add(x, x), mul(x, reshape(x, [8, 8]))]) {
    const graph = { outputs: { y } };
    const spec = lower(graph);
    simulate(graph, spec);
    assert.is(spec.arenaBytes, 512);
  }
});

test('a view keeps the bytes it shows alive', () => {
  const x = neg(input('x', [8, 8]));
  const view = reshape(x, [64]);
  const later = silu(x);
  const graph = { outputs: { y: add(reshape(later, [64]), view) } };
  simulate(graph, lower(graph));
});

test('outputs may be feeds, parameters, constants, views of each, and one tensor under two names', () => {
  const x = input('x', [4, 6]);
  const p = parameterLeaf([4, 6], 'f32');
  const c = constant(new Float32Array(24), [4, 6], 'f32');
  const flat = (t: Tensor): Tensor => reshape(reshape(t, [2, 12]), [24]);
  const outputs = { x, p, c, xv: flat(x), pv: flat(p), cv: flat(c), again: x };
  const graph = { outputs };
  const spec = lower(graph);
  simulate(graph, spec);
  assert.equal(spec.nodes, []);
  assert.equal(spec.segments, []);
  assert.is(spec.arenaBytes, 128, 'only the feed lies in the arena');
  assert.equal(
    spec.persistent.map(({ tensor }) => tensor),
    [p, c],
  );
});

test('a feed that only a later node reads keeps its bytes until then', () => {
  const late = input('late', [64]);
  let y: Tensor = input('x', [64]);
  for (let i = 0; i < 20; i++) y = sum(broadcastTo(y, [4, 64]), [0]);
  const graph = { outputs: { y: add(y, late) } };
  simulate(graph, lower(graph));
});

test('nodes that no result needs are dropped', () => {
  const x = input('x', [4]);
  silu(x);
  const spec = lower({ outputs: { y: neg(x) } });
  assert.equal(
    spec.nodes.map(({ op }) => op),
    ['neg'],
  );
});

test('updates run last, in the order given, and write nothing but parameters', () => {
  const one = input('one', [1]);
  const p = parameterLeaf([4], 'f32');
  const x = input('x', [4]);
  const first = accumulate(one, [[p, x]]);
  const y = neg(x);
  const second = ema(one, one, [[p, y]]);
  const spec = lower({ outputs: { y }, updates: [second, first] });
  assert.equal(
    spec.nodes.map(({ op }) => op),
    ['neg', 'ema', 'accumulate'],
  );
  assert.is(spec.firstUpdate, 1);
  checkSegments(spec);

  const code = (updates: Node[]): string | undefined => {
    try {
      lower({ outputs: {}, updates });
    } catch (error) {
      return (error as { code: string }).code;
    }
  };
  assert.is(code([assign(one, [[p, x]])]), undefined);
  for (const target of [x, neg(x), constant(new Float32Array(4), [4], 'f32'), reshape(p, [4])]) {
    assert.is(code([assign(one, [[target, x]])]), 'ERR_GRAPH');
  }
  assert.is(code([neg(x).node]), 'ERR_GRAPH', 'an operator that writes nothing is no update');
});

test('two inputs of one name are refused', () => {
  assert.throws(
    () => lower({ outputs: { y: add(input('x', [2]), input('x', [2])) } }),
    (error: { code?: string; message: string }) =>
      error.code === 'ERR_GRAPH' && /two inputs are named x/.test(error.message),
  );
});

test('segments begin at layer boundaries, and large or many nodes of one layer are cut too', () => {
  const chain = (x: Tensor, length: number): Tensor => Array.from({ length }).reduce<Tensor>((t) => neg(t), x);
  const x = input('x', [16]);
  const y = scope('b', () =>
    chain(
      scope('a', () => chain(x, 3)),
      2,
    ),
  );
  assert.equal(lower({ outputs: { y } }).segments, [0, 3]);
  assert.equal(lower({ outputs: { y: chain(x, 40) } }).segments, [0, 16, 32]);
  assert.equal(lower({ outputs: { y: chain(input('big', [2 ** 21]), 4) } }).segments, [0, 1, 2, 3]);
});

test('a tap ends its segment, and is kept for no longer', () => {
  const x = input('x', [64]);
  const early = neg(x);
  const middle = silu(early);
  const y = neg(silu(middle));
  const spec = lower({ outputs: { y }, taps: { middle, early } });
  assert.equal(
    spec.taps.map(({ name, before }) => [name, before]),
    [
      ['early', 1],
      ['middle', 2],
    ],
  );
  assert.equal(spec.segments, [0, 1, 2]);
  assert.is(spec.arenaBytes, 256, 'all in the bytes of the feed');
  const view = reshape(early, [8, 8]);
  const viewed = { outputs: { y }, taps: { view, early } };
  simulate(viewed, lower(viewed));
  assert.is(lower({ outputs: {}, taps: { early } }).nodes.length, 1, 'a tap is computed though no output needs it');
  for (const leaf of [x, parameterLeaf([4], 'f32')]) {
    assert.throws(
      () => lower({ outputs: { y }, taps: { leaf } }),
      (error: { code?: string; message: string }) => error.code === 'ERR_GRAPH' && /the tap leaf/.test(error.message),
    );
  }
});

test('recompute lowers the peak of a deep chain', () => {
  const peak = (segment: <T>(fn: () => T) => T): number => {
    const x = input('x', [256, 64]);
    let y = x;
    for (let i = 0; i < 16; i++) {
      const [w1, w2] = [parameterLeaf([256, 64], 'f32'), parameterLeaf([64, 256], 'f32')];
      const previous = y;
      y = segment(() => add(previous, linear(silu(linear(previous, w1)), w2)));
    }
    const graph = { outputs: { dx: grad(y, [x])[0] } };
    const spec = lower(graph);
    simulate(graph, spec);
    return spec.arenaBytes;
  };
  const [plain, saved] = [peak((fn) => fn()), peak(recompute)];
  assert.ok(saved < 0.4 * plain, `${saved} bytes with recompute, ${plain} without`);
});

test('empty tensors take no bytes', () => {
  const x = input('x', [0, 4]);
  const graph = { outputs: { y: neg(reshape(x, [4, 0])) } };
  const spec = lower(graph);
  simulate(graph, spec);
  assert.is(spec.arenaBytes, 0);
});

test.run();
