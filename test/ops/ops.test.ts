// Every operator case of this folder: gradients against central differences, float32 against float64, planned against
// unplanned programs, and repeatability. Then: that no row of ops.json goes without a case.
import { readdirSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { isFloat, type TypedArray } from '../../lib/graph/dtype.ts';
import { fuse } from '../../lib/graph/fuse.ts';
import { reachable } from '../../lib/graph/grad.ts';
import { opTable } from '../../lib/graph/table.ts';
import { ruleOf, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, openDevice, type Values } from '../../lib/runtime/index.ts';
import { close, sameBits } from '../support/assert.ts';
import { type OpCase, uniforms, valuesOf } from '../support/opcase.ts';
import { cases, feedsOf, run, type Traced, trace, update, updates } from '../support/opgraph.ts';

// All rules, those of families without cases too, so that the last tests see them.
const rules = new URL('../../lib/graph/ops/', import.meta.url);
await Promise.all(readdirSync(rules).map((file) => import(new URL(file, rules).href)));

const DIRECTIONS = 3;
const STEP = 1e-5;

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
    const results = [graph, singles, fuse({ outputs: singles }).outputs].flatMap(Object.values<Tensor>);
    const used = new Set(reachable(results).map((node) => node.op));
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

for (const c of updates) {
  test(`${c.op}: ${c.name}`, async () => {
    const [exact, first] = [await update(device, c, 'f64'), await update(device, c, 'f32')];
    const [second, unplanned] = [await update(device, c, 'f32'), await update(device, c, 'f32', false)];
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

test('only backward kernels, chains, argmax, random numbers and optimizers lack a derivative', () => {
  const lacking = operators.filter((op) => !ruleOf(op)?.vjp);
  const known = /Grad(Input|Weight)?$|^chain$|^argmax$|^random/;
  assert.equal(
    lacking.filter((op) => !known.test(op) && opTable[op].family !== 'optim'),
    [],
  );
});

test.run();
