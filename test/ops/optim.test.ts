// AdamW against a plain float64 implementation over several steps, and the flag that holds updates back.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { arrayOf, type DType, type TypedArray } from '../../lib/graph/dtype.ts';
import { accumulate, adamw, assign, ema } from '../../lib/graph/ops/optim.ts';
import { input, type Node, parameterLeaf, type Tensor } from '../../lib/graph/tensor.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { close, sameBits } from '../support/assert.ts';
import { uniforms, valuesOf } from '../support/opcase.ts';

const device = await openDevice('cpu');
test.after(() => device.dispose());

const options = { beta1: 0.9, beta2: 0.98, eps: 1e-6 };

interface State {
  param: number[];
  m: number[];
  v: number[];
}

/** One step of AdamW as its paper writes it (Loshchilov and Hutter 2019), element by element. */
function reference(s: State, grad: number[], lr: number, step: number, weightDecay: number): State {
  const { beta1, beta2, eps } = options;
  const m = s.m.map((v, i) => beta1 * v + (1 - beta1) * grad[i]);
  const v = s.v.map((w, i) => beta2 * w + (1 - beta2) * grad[i] ** 2);
  const param = s.param.map((p, i) => {
    const update = m[i] / (1 - beta1 ** step) / (Math.sqrt(v[i] / (1 - beta2 ** step)) + eps);
    return p - lr * weightDecay * p - lr * update;
  });
  return { param, m, v };
}

for (const [dtype, limit] of [
  ['f64', 1e-14],
  ['f32', 2e-6],
] as [DType, number][]) {
  test(`three AdamW steps, ${dtype}`, async () => {
    const n = 101;
    const next = uniforms(7);
    const leaf = (name: string, size: number): Tensor => input(name, [size], dtype);
    const feeds = { lr: leaf('lr', 1), step: leaf('step', 1), scale: leaf('scale', 1), ok: leaf('ok', 1) };
    const names = ['param', 'm', 'v'] as const;
    const leaves = Object.fromEntries(names.map((name) => [name, parameterLeaf([n], dtype)])) as Record<
      keyof State,
      Tensor
    >;
    const start = valuesOf({ shape: [n] }, dtype, next);
    using parameters = device.parameters();
    for (const name of names) parameters.add(leaves[name], name === 'param' ? { data: start } : {});
    const node = adamw(feeds, [{ ...leaves, grad: leaf('grad', n), weightDecay: 0.35 }], options);
    using program = await device.compile({ outputs: {}, updates: [node] }, { parameters });

    let expected: State = { param: Array.from(start), m: new Array(n).fill(0), v: new Array(n).fill(0) };
    const one = (value: number): TypedArray => arrayOf(dtype, 1).fill(value);
    for (let step = 1; step <= 3; step++) {
      const grad = valuesOf({ shape: [n] }, dtype, next);
      const lr = one(0.01 / step);
      await program.run({ grad, lr, step: one(step), scale: one(0.5), ok: one(1) });
      const scaled = Array.from(grad, (g) => 0.5 * g);
      expected = reference(expected, scaled, lr[0], step, 0.35);
    }
    for (const name of names) close(await parameters.read(leaves[name]), expected[name], limit, name);
  });
}

test('nothing is written unless the flag is positive', async () => {
  const shape = [37];
  const scalar = (name: string): Tensor => input(name, [1]);
  const [ok, rate] = [scalar('ok'), scalar('rate')];
  const leaves = Array.from({ length: 3 }, () => parameterLeaf(shape, 'f32'));
  const value = input('value', shape);
  const [param, m, v] = leaves;
  const nodes: Node[] = [
    adamw({ lr: rate, step: rate, scale: rate, ok }, [{ param, grad: value, m, v, weightDecay: 0.1 }]),
    ema(rate, ok, [[m, value]]),
    assign(ok, [[v, value]]),
  ];
  using parameters = device.parameters();
  const data = valuesOf({ shape, range: [0, 1] }, 'f32', uniforms(3)) as Float32Array;
  for (const leaf of leaves) parameters.add(leaf, { data });
  using program = await device.compile({ outputs: {}, updates: nodes }, { parameters });
  const run = (flag: number, filler: number): Promise<unknown> =>
    program.run({
      ok: Float32Array.of(flag),
      rate: Float32Array.of(0.5),
      value: new Float32Array(37).fill(filler),
    });
  for (const flag of [0, Number.NaN]) {
    await run(flag, Number.NaN);
    for (const leaf of leaves) sameBits(await parameters.read(leaf), data, `flag ${flag}`);
  }
  await run(1, 2);
  assert.equal(await parameters.read(v), new Float32Array(37).fill(2));
  assert.not.equal(await parameters.read(param), data);
});

test('updates run in order, after everything that reads the parameters', async () => {
  const target = parameterLeaf([3], 'f32');
  const one = input('one', [1]);
  const x = input('x', [3]);
  using parameters = device.parameters();
  parameters.add(target, { data: Float32Array.of(1, 2, 3) });
  const updates = [assign(one, [[target, x]]), accumulate(one, [[target, x]])];
  using program = await device.compile({ outputs: { before: target }, updates }, { parameters });
  const { before } = await program.run({ one: Float32Array.of(1), x: Float32Array.of(5, 6, 7) });
  assert.equal(await parameters.read(target), Float32Array.of(10, 12, 14));
  assert.equal(before.length, 3);
});

test.run();
