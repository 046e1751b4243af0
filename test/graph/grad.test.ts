// Properties of grad, recompute and tracing errors over random graphs: derivatives meet central differences in float64,
// recompute segments change no bit and keep no inner tensor, and an error names layer, operator and operands.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ErrorCode } from '../../lib/errors.ts';
import { grad, reachable } from '../../lib/graph/grad.ts';
import {
  add,
  attention,
  avgPool2d,
  broadcastTo,
  cast,
  concat,
  conv2d,
  type DType,
  div,
  embedding,
  geglu,
  gelu,
  greater,
  groupNorm,
  input,
  layerNorm,
  linear,
  matmul,
  maxPool2d,
  mean,
  mul,
  neg,
  pad,
  parameterLeaf,
  recompute,
  reshape,
  resize,
  roll,
  scope,
  silu,
  sin,
  slice,
  softmax,
  split,
  square,
  sub,
  sum,
  type Tensor,
  tanh,
  transpose,
  windowPartition,
} from '../../lib/graph/index.ts';
import { defineOp, ruleOf } from '../../lib/graph/tensor.ts';
import { evaluate, openDevice, type Values } from '../../lib/runtime/index.ts';
import { sameBits } from '../support/assert.ts';
import { uniforms, valuesOf } from '../support/opcase.ts';
import { random } from '../support/random.ts';

const device = await openDevice('cpu');
test.after(() => device.dispose());

const ROWS = 4;
const WIDTH = 6;
const SHAPE = [ROWS, WIDTH];

const attend = (x: Tensor): Tensor => attention(x, x, x, { heads: 2 });

interface Dag {
  leaves: Tensor[];
  outputs: Tensor[];
}

/**
 * A random graph of smooth operators over [4, 6] tensors, with shared subexpressions and dead ends. `segment` wraps the
 * blocks it is traced in; the same seed gives the same graph whatever it does.
 */
function randomDag(seed: number, dtype: DType, segment: <T>(fn: () => T) => T = (fn) => fn()): Dag {
  const { int, next, pick } = random(seed);
  const leaves = ['a', 'b', 'c'].map((name) => input(name, SHAPE, dtype));
  const [weight, gamma, beta] = [
    input('weight', [WIDTH, WIDTH], dtype),
    input('gamma', [WIDTH], dtype),
    input('beta', [WIDTH], dtype),
  ];
  const makers: ((x: Tensor, y: Tensor) => Tensor)[] = [
    add,
    sub,
    (x, y) => mul(x, tanh(y)),
    (x, y) => div(x, add(square(y), 1)),
    (x) => sin(x),
    (x) => silu(x),
    (x) => gelu(x),
    (x) => softmax(x),
    (x) => layerNorm(x, gamma, beta, { eps: 0.1 }),
    (x) => reshape(groupNorm(reshape(x, [2, 2, WIDTH]), gamma, beta, { groups: 3, eps: 0.1, silu: true }), SHAPE),
    (x) => linear(x, weight, beta),
    (x, y) => matmul(matmul(x, y, { transposeB: true }), y),
    (x) => add(mean(x, [0], true), x),
    (x) => broadcastTo(sum(x, [1], true), SHAPE),
    (x) => reshape(transpose(x, [1, 0]), SHAPE),
    (x, y) => slice(concat([x, y], 0), [2, 0], SHAPE),
    (x) => slice(pad(x, [1, 0], [0, 2], 'reflect'), [0, 1], SHAPE),
    (x) => roll(x, [1, -2]),
    (x, y) => add(...(split(concat([x, y], 1), 2, 1) as [Tensor, Tensor])),
    (x) => reshape(attend(reshape(x, [1, ...SHAPE])), SHAPE),
  ];
  const pool = [...leaves];
  const any = (): Tensor => (next() < 0.5 ? pool[pool.length - 1] : pick(pool));
  for (let blocks = int(1, 4); blocks > 0; blocks--) {
    const made = segment(() => {
      const inner: Tensor[] = [];
      for (let i = int(1, 4); i > 0; i--) inner.push(pick(makers)(inner.at(-1) ?? any(), any()));
      return inner;
    });
    // Now and then a block hands out more than its last tensor, as an encoder hands out skips.
    pool.push(...(next() < 0.3 ? made : made.slice(-1)));
  }
  return { leaves: [...leaves, weight, gamma, beta], outputs: [pool[pool.length - 1], any()] };
}

const nameOf = (t: Tensor): string => (t.node.leaf as { name: string }).name;

const feedsOf = (tensors: readonly Tensor[], seed: number): Values => {
  const next = uniforms(seed);
  return Object.fromEntries(tensors.map((t) => [nameOf(t), valuesOf({ shape: [...t.shape] }, t.dtype, next)]));
};

/** The feeds among `values` that `outputs` read, then the outputs' values. */
function run(outputs: Record<string, Tensor>, values: Values): Promise<Values> {
  const leaves = reachable(Object.values(outputs)).filter((node) => node.leaf);
  const names = leaves.map((node) => nameOf(node.outputs[0]));
  return evaluate(device, outputs, Object.fromEntries(names.map((name) => [name, values[name]])));
}

const named = (prefix: string, tensors: readonly Tensor[]): Record<string, Tensor> =>
  Object.fromEntries(tensors.map((t, i) => [`${prefix}${i}`, t]));

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number => Array.from(a).reduce((s, v, i) => s + v * b[i], 0);

test('the gradients of random graphs are those of central differences', async () => {
  const STEP = 1e-5;
  for (let seed = 0; seed < 40; seed++) {
    const { leaves, outputs } = randomDag(seed, 'f64');
    const cotangents = outputs.map((t, k) => input(`cotangent${k}`, t.shape, 'f64'));
    const gradients = grad(outputs, leaves, cotangents);
    const feeds = feedsOf([...leaves, ...cotangents], seed);
    const loss = add(...(outputs.map((t, k) => sum(mul(t, cotangents[k]))) as [Tensor, Tensor]));
    const values = await run({ ...named('grad', gradients), loss }, feeds);
    for (const [i, leaf] of leaves.entries()) {
      assert.equal(gradients[i].shape, leaf.shape);
      const direction = valuesOf({ shape: [...leaf.shape] }, 'f64', uniforms(seed + 1000 * (i + 1)));
      const [up, down] = await Promise.all(
        [STEP, -STEP].map(async (step) => {
          const moved = (feeds[nameOf(leaf)] as Float64Array).map((v, j) => v + step * direction[j]);
          return (await run({ loss }, { ...feeds, [nameOf(leaf)]: moved })).loss[0];
        }),
      );
      const expected = (up - down) / (2 * STEP);
      const actual = dot(values[`grad${i}`], direction);
      // What central differences lose to rounding, and to a third derivative of the gradient's order.
      const terms = dot(values[`grad${i}`].map(Math.abs), direction.map(Math.abs)) + Math.abs(values.loss[0]);
      const close = Math.abs(actual - expected) <= 1e-6 * terms + 1e-9;
      assert.ok(close, `seed ${seed}, d/d${nameOf(leaf)}: ${actual} by the graph, ${expected} by differences`);
    }
  }
});

test('recompute segments change no bit of outputs and gradients', async () => {
  for (let seed = 0; seed < 40; seed++) {
    const results = [];
    for (const segment of [<T>(fn: () => T): T => fn(), recompute]) {
      const { leaves, outputs } = randomDag(seed, 'f32', segment);
      const graph = { ...named('out', outputs), ...named('grad', grad(outputs, leaves)) };
      results.push(await run(graph, feedsOf(leaves, seed)));
    }
    for (const [key, value] of Object.entries(results[0])) sameBits(results[1][key], value, `seed ${seed}, ${key}`);
  }
});

test('a backward graph reads no inner tensor of a recompute segment', () => {
  for (let seed = 0; seed < 40; seed++) {
    const { leaves, outputs } = randomDag(seed, 'f32', recompute);
    const forward = reachable(outputs);
    const last = Math.max(...forward.map((node) => node.id));
    const handedOut = new Set(outputs);
    for (const node of forward) {
      for (const t of node.inputs) if (t && t.node.recompute !== node.recompute) handedOut.add(t);
    }
    for (const node of reachable(grad(outputs, leaves)).filter(({ id }) => id > last)) {
      assert.is(node.recompute, undefined);
      for (const t of node.inputs) {
        const kept = !t || t.node.id > last || !t.node.recompute || handedOut.has(t);
        assert.ok(kept, `seed ${seed}: ${node.op} reads ${t} from inside a segment`);
      }
    }
  }
});

test('nested segments give the gradients of plain tracing', async () => {
  const build = (wrap: <T>(fn: () => T) => T): Record<string, Tensor> => {
    const x = input('x', SHAPE);
    const y = wrap(() => {
      const before = silu(sin(x));
      const inner = wrap(() => tanh(mul(before, square(before))));
      return add(softmax(inner), before);
    });
    return { y, dx: grad(sum(mul(y, y)), [x])[0] };
  };
  const feeds = feedsOf([input('x', SHAPE)], 3);
  const [plain, nested] = [
    await run(
      build((fn) => fn()),
      feeds,
    ),
    await run(build(recompute), feeds),
  ];
  for (const key of ['y', 'dx']) sameBits(nested[key], plain[key], key);
});

test('recompute lowers the peak of a chain of blocks', async () => {
  const peak = async (wrap: <T>(fn: () => T) => T): Promise<number> => {
    const x = input('x', [64, 64]);
    let y = x;
    for (let i = 0; i < 8; i++) y = wrap(() => tanh(sin(tanh(sin(mul(y, sin(y)))))));
    const program = await device.compile({ outputs: { dx: grad(sum(y), [x])[0] } });
    const { peakBytes } = program;
    program.dispose();
    return peakBytes;
  };
  const [plain, frugal] = [await peak((fn) => fn()), await peak(recompute)];
  assert.ok(frugal < plain / 2, `${frugal} of ${plain} bytes`);
});

test('a tensor that the outputs do not depend on has a zero gradient', async () => {
  const [x, apart] = [input('x', [3]), input('apart', [2, 2], 'f64')];
  const [dx, dapart, dmask] = grad(sum(mul(x, greater(x, 0))), [x, apart, greater(x, 0)]);
  assert.equal([dapart.shape, dapart.dtype, dmask.shape], [[2, 2], 'f64', [3]]);
  const values = await run({ dx, dapart }, { x: Float32Array.of(2, -1, 3) });
  assert.equal(Array.from(values.dx), [1, 0, 1]);
  assert.equal(Array.from(values.dapart), [0, 0, 0, 0]);
});

test('an output and an inner tensor can be differentiated against', async () => {
  const x = input('x', [2], 'f64');
  const inner = square(x);
  const y = mul(inner, inner);
  const [dy, dinner, dx] = grad([y, inner], [y, inner, x]);
  const values = await run({ dy, dinner, dx }, { x: Float64Array.of(2, 3) });
  assert.equal(Array.from(values.dy), [1, 1]);
  assert.equal(Array.from(values.dinner), [9, 19]);
  assert.equal(Array.from(values.dx), [36, 114]);
});

test('gradients can be differentiated again', async () => {
  const x = input('x', [3], 'f64');
  const [first] = grad(sum(mul(x, sin(x))), [x]);
  const [second] = grad(sum(first), [x]);
  const feeds = { x: Float64Array.of(-0.5, 0.25, 2) };
  const { y } = await run({ y: second }, feeds);
  feeds.x.forEach((v, i) => {
    assert.ok(Math.abs(y[i] - (2 * Math.cos(v) - v * Math.sin(v))) < 1e-14);
  });
});

test('no gradient passes through whole numbers', async () => {
  const x = input('x', [2]);
  const [dx] = grad(sum(cast(cast(mul(x, 3), 'i32'), 'f32')), [x]);
  assert.equal(Array.from((await run({ dx }, { x: Float32Array.of(1, 2) })).dx), [0, 0]);
});

function thrownBy(fn: () => unknown): { code: ErrorCode; message: string } {
  try {
    fn();
  } catch (error) {
    return error as { code: ErrorCode; message: string };
  }
  return assert.unreachable('nothing was thrown') as never;
}

const f32 = (...shape: number[]): Tensor => input('x', shape);

/** Wrong uses: the start of the message after the layer, and the call. */
const mistakes: [start: string, call: () => unknown][] = [
  ['add(f32[2,3], f32[4]): [2,3] and [4] do not broadcast', () => add(f32(2, 3), f32(4))],
  ['mul(f32[2], f64[2]): mixes dtypes f32 and f64', () => mul(f32(2), input('d', [2], 'f64'))],
  ['neg(i32[2]): needs a floating dtype', () => neg(input('i', [2], 'i32'))],
  ['sum(f32[2,3]): axes [2]', () => sum(f32(2, 3), [2])],
  ['softmax(f32[]): ', () => softmax(f32())],
  ['geglu(f32[2,3]): ', () => geglu(f32(2, 3))],
  ['matmul(f32[2,3], f32[4,5]): the inner extents 3 and 4 differ', () => matmul(f32(2, 3), f32(4, 5))],
  ['linear(f32[2,3], f32[5,4], none): ', () => linear(f32(2, 3), f32(5, 4))],
  ['conv2d(f32[1,8,8,3], f32[4,5,3,3], none): ', () => conv2d(f32(1, 8, 8, 3), f32(4, 5, 3, 3))],
  [
    'attention(f32[1,4,6], f32[1,5,6], f32[1,4,6], none): ',
    () => attention(f32(1, 4, 6), f32(1, 5, 6), f32(1, 4, 6), { heads: 2 }),
  ],
  [
    'groupNorm(f32[1,4,6], f32[6], f32[6]): 6 channels',
    () => groupNorm(f32(1, 4, 6), f32(6), f32(6), { groups: 4, eps: 1 }),
  ],
  ['layerNorm(f32[4,6], f32[5], f32[6]): ', () => layerNorm(f32(4, 6), f32(5), f32(6), { eps: 1 })],
  ['resize(f32[4,6]): ', () => resize(f32(4, 6), [2, 2], { mode: 'bilinear' })],
  ['resize(f32[1,4,6,3]): nearest', () => resize(f32(1, 4, 6, 3), [2, 2], { mode: 'nearest', antialias: true })],
  ['avgPool2d(f32[1,4,6,3]): a 5x2 window', () => avgPool2d(f32(1, 4, 6, 3), { kernel: [5, 2] })],
  [
    'maxPool2d(f32[1,4,6,3]): needs padding',
    () => maxPool2d(f32(1, 4, 6, 3), { kernel: [2, 2], padding: [2, 0, 0, 0] }),
  ],
  ['reshape(f32[2,3]): 6 elements do not fill [4,1.5]', () => reshape(f32(2, 3), [4, -1])],
  ['reshape(f32[1,6,8,2]): 96 elements do not fill [1,1.5,', () => windowPartition(f32(1, 6, 8, 2), 4)],
  ['transpose(f32[2,3]): [0,0] is no permutation', () => transpose(f32(2, 3), [0, 0])],
  ['broadcastTo(f32[2,3]): does not stretch to [2,4]', () => broadcastTo(f32(2, 3), [2, 4])],
  ['concat(f32[2,3], f32[3,3]): extents other than axis 1', () => concat([f32(2, 3), f32(3, 3)], 1)],
  ['concat(f32[2,3], f32[3,3]): has no axis 2', () => concat([f32(2, 3), f32(3, 3)], 2)],
  ['slice(f32[2,3]): has no box [2,2] at [0,2]', () => slice(f32(2, 3), [0, 2], [2, 2])],
  ['slice(f32[2,3]): has no box [2,1.5]', () => split(f32(2, 3), 2, 1)],
  ['pad(f32[2,3]): axis 0 of 2 allows at most 1 reflect', () => pad(f32(2, 3), [2, 0], [0, 0], 'reflect')],
  ['roll(f32[2,3]): needs 2 whole shifts', () => roll(f32(2, 3), [1])],
  ['embedding(f32[9,4], f32[2]): ', () => embedding(f32(9, 4), f32(2))],
];

for (const [start, call] of mistakes) {
  test(`a wrong operand is named: ${start}`, () => {
    const inside = thrownBy(() => scope('encoder', () => scope('block.1', call)));
    assert.is(inside.code, 'ERR_SHAPE');
    assert.ok(inside.message.startsWith(`encoder.block.1: ${start}`), inside.message);
    // The layer path is left again, also by an error.
    const outside = thrownBy(call);
    assert.ok(outside.message.startsWith(start), outside.message);
  });
}

test('a gradient of a wrong shape, or of an operator that has none, is refused', () => {
  const x = input('x', [2, 3]);
  const wrong = thrownBy(() => grad(sin(x), [x], [input('g', [3])]));
  assert.is(wrong.code, 'ERR_GRAPH');
  const y = scope('head', () => silu(x));
  const [dx] = scope('loss', () => grad(y, [x]));
  const twice = thrownBy(() => grad(dx, [x]));
  assert.equal([twice.code, twice.message], ['ERR_NO_GRADIENT', 'head (gradient): siluGrad has no derivative']);
});

test('what the derivative of a layer computes carries its name, and so do its errors', () => {
  const [x, w] = [input('x', [1, 8, 8, 4]), parameterLeaf([6, 4, 3, 3], 'f32')];
  const y = scope('down.0', () => scope('conv', () => conv2d(x, w, undefined, { padding: 1 })));
  const top = silu(y);
  const found = scope('loss', () => grad(top, [x, w]));
  const layers = new Map(reachable(found).map((node) => [node.op, node.layer]));
  assert.is(layers.get('conv2dGradInput'), 'down.0.conv (gradient)');
  assert.is(layers.get('conv2dGradWeight'), 'down.0.conv (gradient)');
  assert.is(layers.get('siluGrad'), 'loss', 'what has no layer is named by where it is differentiated');
  assert.is(scope('after', () => neg(x)).node.layer, 'after', 'the path is as it was');

  const rule = ruleOf('conv2d')!;
  try {
    const vjps = [() => [add(x, input('odd', [5]))], () => [input('odd', [5])]];
    const messages = vjps.map((vjp) => {
      defineOp('conv2d', { ...rule, vjp });
      return thrownBy(() => grad(top, [x])).message;
    });
    assert.match(messages[0], /^down\.0\.conv \(gradient\): add\(f32\[1,8,8,4\], f32\[5\]\): /);
    assert.match(messages[1], /^down\.0\.conv \(gradient\): the gradient of input.* came out as /);
  } finally {
    defineOp('conv2d', rule);
  }
  assert.is(scope('after', () => neg(x)).node.layer, 'after', 'also after an error');
});

test('recomputed nodes keep the name of their layer', () => {
  const x = input('x', [4, 4]);
  const y = recompute(() => scope('block', () => sin(square(x))));
  const layers = reachable(grad(y, [x])).map(({ op, layer }) => `${op} ${layer}`);
  assert.ok(layers.includes('square block'));
  assert.ok(layers.includes('cos block (gradient)'));
});

test.run();
