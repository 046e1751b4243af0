// Fusing of elementwise operators into chains: the same bits, valid programs, and what joins or does not.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { fuse } from '../../lib/graph/fuse.ts';
import { grad } from '../../lib/graph/grad.ts';
import { gelu, silu } from '../../lib/graph/ops/activation.ts';
import { l2Normalize } from '../../lib/graph/ops/compose.ts';
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { add, affine, cast, mul, neg, square, sub } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { linear, matmul } from '../../lib/graph/ops/matmul.ts';
import { ema } from '../../lib/graph/ops/optim.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { type Graph, lower } from '../../lib/graph/program.ts';
import { opTable } from '../../lib/graph/table.ts';
import { input, parameterLeaf, scope, type Tensor } from '../../lib/graph/tensor.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { randomGraph, sameAsUnfused } from '../support/graphs.ts';
import { simulate } from '../support/simulate.ts';

const device = await openDevice('cpu');
test.after(() => device.dispose());

const opsOf = (graph: Graph): string[] => lower(fuse(graph)).nodes.map(({ op }) => op);
const x = input('x', [6, 35]);
const z = input('z', [6, 35]);

for (const [dtype, seeds] of [
  ['f32', 150],
  ['bf16', 50],
  ['f16', 50],
] as const) {
  test(`fused programs of random graphs in ${dtype} give the bits of unfused ones, and are valid`, async () => {
    let before = 0;
    let after = 0;
    for (let seed = 0; seed < seeds; seed++) {
      const graph = randomGraph(seed, dtype);
      const fused = fuse(graph);
      simulate(fused, lower(fused));
      before += lower(graph).nodes.length;
      after += lower(fused).nodes.length;
      await sameAsUnfused(device, graph, seed);
    }
    assert.ok(after < 0.8 * before, `${after} nodes of ${before}`);
  });
}

test('a chain takes as many bytes as what it replaces, at the most', () => {
  for (let seed = 0; seed < 300; seed++) {
    const graph = randomGraph(seed);
    const [plain, fused] = [lower(graph).arenaBytes, lower(fuse(graph)).arenaBytes];
    // The planner is greedy: another graph may fall into place a little worse.
    assert.ok(fused <= 1.25 * plain, `seed ${seed}: ${fused} bytes fused, ${plain} before`);
  }
});

test('trees of elementwise operators become one node, numbers and casts with them', () => {
  const scale = input('scale', [6, 1]);
  const half = input('half', [6, 35], 'bf16');
  assert.equal(opsOf({ outputs: { y: add(mul(x, scale), mul(z, affine(scale, -1, 1))) } }), ['affine', 'chain']);
  assert.equal(opsOf({ outputs: { y: add(x, 1) } }), ['chain']);
  assert.equal(opsOf({ outputs: { y: cast(add(cast(half, 'f32'), x), 'bf16') } }), ['chain']);
  assert.equal(opsOf({ outputs: { y: l2Normalize(x) } }), ['square', 'sum', 'chain', 'mul']);
});

test('one operator alone stays what it is, as does what others read too, a result, a tap or a view', () => {
  assert.equal(opsOf({ outputs: { y: add(x, z) } }), ['add']);
  const shared = add(x, z);
  assert.equal(opsOf({ outputs: { y: add(neg(shared), sum(shared)) } }), ['add', 'sum', 'chain']);
  assert.equal(opsOf({ outputs: { y: neg(shared), shared } }), ['add', 'neg']);
  assert.equal(opsOf({ outputs: { y: neg(shared) }, taps: { shared } }), ['add', 'neg']);
  assert.equal(opsOf({ outputs: { y: neg(reshape(shared, [210])) } }), ['add', 'neg']);
  assert.equal(opsOf({ outputs: { y: mul(shared, shared) } }), ['add', 'mul']);
});

test('what is smaller than the result is computed once, before', () => {
  const row = input('row', [35]);
  assert.equal(opsOf({ outputs: { y: add(x, square(neg(row))) } }), ['chain', 'add']);
});

test('a chain computes in one dtype, and in 16 bits rounds each step', () => {
  const half = input('half', [8], 'bf16');
  const roundsOf = (y: Tensor): unknown => lower(fuse({ outputs: { y } })).nodes.map(({ attrs }) => attrs[3]?.[0]);
  assert.equal(roundsOf(add(neg(half), 1)), [1]);
  assert.equal(roundsOf(cast(neg(cast(half, 'f32')), 'bf16')), [0]);
  assert.equal(opsOf({ outputs: { y: affine(cast(add(half, half), 'f32'), 2) } }), ['add', 'chain']);
  assert.equal(opsOf({ outputs: { y: neg(cast(input('w', [8]), 'bf16')) } }), ['cast', 'neg']);
  assert.equal(opsOf({ outputs: { y: cast(cast(half, 'f32'), 'f16') } }), ['cast', 'cast']);
});

/** The operators that each product of a graph finishes with, by name, and the shape of its result. */
const finishedOf = (graph: Graph): [string, string, readonly number[]][] => {
  const { nodes, tensors } = lower(fuse(graph));
  return nodes.map(({ op, attrs, outputs }) => {
    const code = Object.keys(opTable[op].attrs).indexOf('code');
    const steps = code < 0 ? [] : attrs[code].filter((_, i) => i % 2 === 0).map((place) => Object.keys(opTable)[place]);
    return [op, steps.join(' '), tensors[outputs[0]].shape];
  });
};
const w = input('w', [35, 35]);

test('what follows a product is finished by it: activations, scales, residuals and rows for each image', () => {
  const bias = input('bias', [35]);
  assert.equal(finishedOf({ outputs: { y: add(z, affine(silu(linear(x, w, bias)), 2)) } }), [
    ['linear', 'silu affine add', [6, 35]],
  ]);
  const image = input('image', [2, 5, 4, 3]);
  const kernel = input('kernel', [8, 3, 1, 1]);
  const shift = reshape(input('shift', [2, 8]), [2, 1, 1, 8]);
  assert.equal(finishedOf({ outputs: { y: gelu(add(conv2d(image, kernel), shift)) } }), [
    ['conv2d', 'add gelu', [2, 5, 4, 8]],
  ]);
  // Through views; and of two products the second, which need not wait.
  const y = silu(reshape(add(matmul(x, w), matmul(z, w)), [210]));
  assert.equal(finishedOf({ outputs: { y } }), [
    ['matmul', '', [6, 35]],
    ['matmul', 'add silu', [6, 35]],
  ]);
});

test('gradients of activations are finished by the product before them', () => {
  const h = linear(x, w);
  const [dx] = grad([linear(silu(h), w)], [x]);
  assert.equal(
    finishedOf({ outputs: { dx } }).map(([op, steps]) => `${op} ${steps}`.trim()),
    ['linear', 'full', 'matmul siluGrad', 'matmul'],
  );
});

test('a product of 16 bits is written as float32 where it is cast, which ends what it finishes', () => {
  const [half, weight] = [input('half', [6, 35], 'bf16'), input('weight', [35, 35], 'bf16')];
  const wide = cast(silu(linear(half, weight)), 'f32');
  assert.equal(finishedOf({ outputs: { wide } }), [['linear', 'silu', [6, 35]]]);
  assert.is(lower(fuse({ outputs: { wide } })).tensors.at(-1)!.dtype, 'f32');
  assert.equal(opsOf({ outputs: { y: mul(wide, z) } }), ['linear', 'mul']);
  assert.equal(opsOf({ outputs: { y: cast(linear(x, w), 'bf16') } }), ['linear', 'cast']);
});

test('the gradient of a convolution of 16 bits by its weight is written as float32 where it is cast, and finishes nothing else', () => {
  const [image, kernel] = [input('image', [1, 5, 5, 3]), input('kernel', [8, 3, 3, 3])];
  const product = conv2d(cast(image, 'bf16'), cast(kernel, 'bf16'));
  const [dw] = grad([cast(product, 'f32')], [kernel]);
  const { nodes, tensors } = lower(fuse({ outputs: { dw } }));
  assert.is(nodes.at(-1)!.op, 'conv2dGradWeight');
  assert.is(tensors[nodes.at(-1)!.outputs[0]].dtype, 'f32');
  const [plain] = grad([conv2d(image, kernel)], [kernel]);
  assert.is(opsOf({ outputs: { y: affine(plain, 2) } }).at(-1), 'affine');
});

test('a product stays what it is where its result is read as it was, or as a part of something larger', () => {
  const y = linear(x, w);
  const plain = (outputs: Record<string, Tensor>, taps?: Record<string, Tensor>): string[] =>
    finishedOf({ outputs, ...(taps ? { taps } : {}) }).map(([op, steps]) => `${op} ${steps}`.trim());
  assert.equal(plain({ y, z: silu(y) }), ['linear', 'silu']);
  assert.equal(plain({ z: silu(y) }, { y }), ['linear', 'silu']);
  assert.equal(plain({ z: add(silu(y), y) }), ['linear', 'silu', 'add']);
  assert.equal(plain({ z: mul(y, y) }), ['linear', 'mul']);
  assert.equal(plain({ z: sub(z, y) }), ['linear', 'sub']);
  assert.equal(plain({ z: add(y, input('larger', [2, 6, 35])) }), ['linear', 'add']);
  assert.equal(plain({ z: add(y, input('numbers', [6, 1])) }), ['linear', 'add']);
  assert.equal(plain({ z: add(reshape(y, [35, 6]), input('row', [6])) }), ['linear', 'add']);
  assert.equal(plain({ z: silu(silu(silu(silu(silu(y))))) }), ['linear silu silu silu silu', 'silu']);
});

test('a product waits only where what it reads is hardly larger than its result', () => {
  const wide = input('wide', [6, 350]);
  const late = (narrow: Tensor): Graph => {
    const y = matmul(narrow, parameterLeaf([narrow.shape[1], 35], 'f32'));
    return { outputs: { y: add(y, sum(square(silu(z)), [0], true)) } };
  };
  assert.equal(
    finishedOf(late(silu(x)))
      .at(-1)!
      .slice(0, 2),
    ['matmul', 'add'],
  );
  assert.equal(
    finishedOf(late(silu(wide)))
      .at(-1)!
      .slice(0, 2),
    ['add', ''],
  );
});

test('trees beyond what native code holds are cut', () => {
  const inputs = Array.from({ length: 20 }, (_, i) => input(`i${i}`, [8]));
  const wide = inputs.reduce((a, b) => add(a, b));
  const deep = inputs.slice(0, 6).reduceRight((b, a) => sub(a, b));
  let long: Tensor = input('l', [8]);
  for (let i = 0; i < 100; i++) long = neg(long);
  for (const y of [wide, deep, long]) {
    const { nodes } = lower(fuse({ outputs: { y } }));
    const place = Object.keys(opTable);
    assert.ok(nodes.length > 1 && nodes.some(({ op }) => op === 'chain'));
    for (const { op, inputs, attrs } of nodes) {
      if (op !== 'chain') continue;
      assert.ok(inputs.length <= 6 && attrs[0].length / 2 <= 24 && attrs[1].length <= 12);
      let depth = 0;
      for (let i = 0; i < attrs[0].length; i += 2) {
        const name = place[attrs[0][i]];
        depth += name === 'input' || name === 'full' ? 1 : 1 - opTable[name].inputs.length;
        assert.ok(depth >= 1 && depth <= 4);
      }
    }
  }
});

test('nothing lives longer for a chain than it saves', () => {
  const a = silu(x);
  const b = silu(z);
  const early = mul(a, b);
  const between = sum(square(silu(x)));
  // a and b would both live until the end, to save the one value of `early`.
  const graph = { outputs: { y: add(early, between) } };
  assert.equal(opsOf(graph), ['silu', 'silu', 'mul', 'silu', 'square', 'sum', 'add']);
});

test('layers, updates and the order of nodes stay', () => {
  const average = parameterLeaf([8], 'f32');
  const one = input('one', [1]);
  const value = scope('outer', () => affine(neg(parameterLeaf([8], 'f32')), 2));
  const graph = { outputs: { value }, updates: [ema(one, one, [[average, value]])] };
  const { nodes, firstUpdate } = lower(fuse(graph));
  assert.equal(
    nodes.map(({ op, layer }) => [op, layer]),
    [
      ['chain', 'outer'],
      ['ema', ''],
    ],
  );
  assert.is(firstUpdate, 1);
  assert.is(lower(graph).nodes.length, 3, 'the graph itself stays as it was');
});

test.run();
