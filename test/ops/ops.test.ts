// Every operator case of this folder: gradients against central differences, float32 against float64, planned against
// unplanned programs, and repeatability. Then: that no row of ops.json goes without a case.
import { readdirSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type DType, isFloat, type TypedArray } from '../../lib/graph/dtype.ts';
import { grad, reachable } from '../../lib/graph/grad.ts';
import { opTable } from '../../lib/graph/table.ts';
import { input, parameterLeaf, ruleOf, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, openDevice, type Values } from '../../lib/runtime/index.ts';
import { close, sameBits } from '../support/assert.ts';
import { type OpCase, type UpdateCase, uniforms, valuesOf } from '../support/opcase.ts';

const files = readdirSync(import.meta.dirname).filter((file) => file.endsWith('.cases.ts'));
const modules: { cases: OpCase[]; updates?: UpdateCase[] }[] = await Promise.all(
  files.map((file) => import(`./${file}`)),
);
// All rules, those of families without cases too, so that the last tests see them.
const rules = new URL('../../lib/graph/ops/', import.meta.url);
await Promise.all(readdirSync(rules).map((file) => import(new URL(file, rules).href)));
const cases = modules.flatMap((m) => m.cases);
const updates = modules.flatMap((m) => m.updates ?? []);

const DIRECTIONS = 3;
const STEP = 1e-5;

/** A case traced in one precision: its results (`out.0`, ...) and the gradients of its inputs (`grad.x`, ...). */
interface Traced {
  results: Record<string, Tensor>;
  gradients: Record<string, Tensor>;
}

function trace(c: OpCase, float: DType): Traced {
  const leaves = Object.fromEntries(
    Object.entries(c.inputs).map(([name, { shape, dtype }]) => [name, input(name, shape, dtype ?? float)]),
  );
  const outputs = [c.build(leaves)].flat();
  const wrt = Object.keys(c.inputs).filter((name) => !c.inputs[name].dtype && !c.inputs[name].nograd);
  const floats = outputs.filter((t) => isFloat(t.dtype));
  const cotangents = floats.map((t, k) => input(`cotangent.${k}`, t.shape, t.dtype));
  const gradients = wrt.length
    ? grad(
        floats,
        wrt.map((name) => leaves[name]),
        cotangents,
      )
    : [];
  return {
    results: Object.fromEntries(outputs.map((t, k) => [`out.${k}`, t])),
    gradients: Object.fromEntries(gradients.map((t, i) => [`grad.${wrt[i]}`, t])),
  };
}

/** The feeds of a case, cotangents included; `forward` leaves those out. */
function feedsOf(
  c: OpCase,
  { results }: Traced,
  float: DType,
): { forward: Values; all: Values; cotangents: TypedArray[] } {
  const next = uniforms(c.name.length);
  const forward = Object.fromEntries(
    Object.entries(c.inputs).map(([name, spec]) => [name, valuesOf(spec, float, next)]),
  );
  const cotangents = Object.values(results)
    .filter((t) => isFloat(t.dtype))
    .map((t) => valuesOf({ shape: [...t.shape] }, t.dtype, next));
  return {
    forward,
    cotangents,
    all: { ...forward, ...Object.fromEntries(cotangents.map((v, k) => [`cotangent.${k}`, v])) },
  };
}

/** The feeds among `values` that the graph of `outputs` reads. */
function readBy(outputs: Record<string, Tensor>, values: Values): Values {
  const names = reachable(Object.values(outputs)).flatMap(({ leaf }) => (leaf?.kind === 'input' ? [leaf.name] : []));
  return Object.fromEntries(names.map((name) => [name, values[name]]));
}

/** Runs a graph `times` times on one program. */
async function run(device: Device, outputs: Record<string, Tensor>, feeds: Values[], plan = true): Promise<Values[]> {
  const program = await device.compile({ outputs }, { plan });
  try {
    const results: Values[] = [];
    for (const f of feeds) results.push(await program.run(readBy(outputs, f)));
    return results;
  } finally {
    program.dispose();
  }
}

const dot = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, v, i) => sum + v * b[i], 0);

/** Compares `gradient` with central differences of sum(outputs * cotangents) along random directions of input `name`. */
async function checkGradient(
  device: Device,
  c: OpCase,
  traced: Traced,
  name: string,
  gradient: TypedArray,
): Promise<void> {
  const { forward, cotangents } = feedsOf(c, traced, 'f64');
  const next = uniforms(name.length + 100);
  const directions = Array.from({ length: DIRECTIONS }, () => valuesOf({ shape: c.inputs[name].shape }, 'f64', next));
  const moved = (direction: TypedArray, step: number): Values => ({
    ...forward,
    [name]: (forward[name] as Float64Array).map((v, i) => v + step * direction[i]),
  });
  const points = directions.flatMap((d) => [moved(d, STEP), moved(d, -STEP)]);
  const floats = Object.keys(traced.results).filter((key) => isFloat(traced.results[key].dtype));
  const losses = (await run(device, traced.results, points)).map((values) =>
    floats.reduce((sum, key, k) => sum + dot(values[key], cotangents[k]), 0),
  );
  directions.forEach((direction, d) => {
    const expected = (losses[2 * d] - losses[2 * d + 1]) / (2 * STEP);
    const actual = dot(gradient, direction);
    // What the terms of the two sums can lose to rounding, and to the third derivative, in float64.
    const terms = dot(gradient.map(Math.abs), direction.map(Math.abs)) + Math.abs(losses[2 * d]);
    const error = Math.abs(actual - expected);
    const limit = 1e-6 * terms + 1e-9;
    assert.ok(error <= limit, `d/d${name}, direction ${d}: ${actual} by the graph, ${expected} by differences`);
  });
}

const device = await openDevice('cpu');
test.after(() => device.dispose());

for (const c of cases) {
  test(`${c.op}: ${c.name}`, async () => {
    const exact = trace(c, 'f64');
    const single = trace(c, 'f32');
    const graph = { ...exact.results, ...exact.gradients };
    const singles = { ...single.results, ...single.gradients };
    const used = new Set(reachable([graph, singles].flatMap(Object.values<Tensor>)).map((node) => node.op));
    for (const op of [c.op, ...(c.also ?? [])]) assert.ok(used.has(op), `the case does not reach ${op}`);

    const [reference] = await run(device, graph, [feedsOf(c, exact, 'f64').all]);
    for (const [key, gradient] of Object.entries(exact.gradients)) {
      const name = key.slice('grad.'.length);
      assert.equal(gradient.shape, c.inputs[name].shape);
      await checkGradient(device, c, exact, name, reference[key]);
    }

    const feeds = feedsOf(c, single, 'f32').all;
    const [first, second] = await run(device, singles, [feeds, feeds]);
    const [unplanned] = await run(device, singles, [feeds], false);
    for (const key of Object.keys(singles)) {
      close(first[key], reference[key], c.tolerance ?? 1e-5, `${key}, float32 against float64`);
      sameBits(second[key], first[key], `${key}, second run`);
      sameBits(unplanned[key], first[key], `${key}, unplanned`);
    }
  });
}

/** The parameters after one update from the case's values. */
async function update(c: UpdateCase, float: DType, plan: boolean): Promise<Values> {
  const next = uniforms(c.name.length);
  using parameters = device.parameters();
  const leaves: Record<string, Tensor> = {};
  for (const [name, spec] of Object.entries(c.parameters)) {
    leaves[name] = parameterLeaf(spec.shape, float);
    parameters.add(leaves[name], { data: valuesOf(spec, float, next) });
  }
  const feeds: Record<string, TypedArray> = {};
  for (const [name, spec] of Object.entries(c.inputs)) {
    leaves[name] = input(name, spec.shape, spec.dtype ?? float);
    feeds[name] = valuesOf(spec, float, next);
  }
  const program = await device.compile({ outputs: {}, updates: [c.build(leaves)] }, { parameters, plan });
  await program.run(feeds);
  program.dispose();
  const after: Record<string, TypedArray> = {};
  for (const name of Object.keys(c.parameters)) after[name] = await parameters.read(leaves[name]);
  return after;
}

for (const c of updates) {
  test(`${c.op}: ${c.name}`, async () => {
    const [exact, first] = [await update(c, 'f64', true), await update(c, 'f32', true)];
    const [second, unplanned] = [await update(c, 'f32', true), await update(c, 'f32', false)];
    for (const name of Object.keys(c.parameters)) {
      close(first[name], exact[name], c.tolerance ?? 1e-5, `${name}, float32 against float64`);
      sameBits(second[name], first[name], `${name}, second run`);
      sameBits(unplanned[name], first[name], `${name}, unplanned`);
    }
  });
}

const operators = Object.keys(opTable).filter((op) => opTable[op].family !== 'leaf');

test('every operator has a case', () => {
  const covered = new Set([...cases, ...updates].flatMap((c) => [c.op, ...('also' in c ? (c.also ?? []) : [])]));
  assert.equal(
    operators.filter((op) => !covered.has(op)),
    [],
  );
});

test('only backward kernels, argmax, random numbers and optimizers lack a derivative', () => {
  const lacking = operators.filter((op) => !ruleOf(op)?.vjp);
  const known = /Grad(Input|Weight)?$|^argmax$|^random/;
  assert.equal(
    lacking.filter((op) => !known.test(op) && opTable[op].family !== 'optim'),
    [],
  );
});

test.run();
