// The operator cases of test/ops, traced into graphs with their gradients and run on a device.
import { readdirSync } from 'node:fs';
import { type DType, isFloat, type TypedArray } from '../../lib/graph/dtype.ts';
import { grad, reachable } from '../../lib/graph/grad.ts';
import { input, parameterLeaf, type Tensor } from '../../lib/graph/tensor.ts';
import type { Device, Values } from '../../lib/runtime/index.ts';
import { type OpCase, type UpdateCase, uniforms, valuesOf } from './opcase.ts';

const folder = new URL('../ops/', import.meta.url);
const files = readdirSync(folder).filter((file) => /\.cases\.[jt]s$/.test(file));
const modules: { cases: OpCase[]; updates?: UpdateCase[] }[] = await Promise.all(
  files.map((file) => import(new URL(file, folder).href)),
);
export const cases = modules.flatMap((m) => m.cases);
export const updates = modules.flatMap((m) => m.updates ?? []);

/** A case traced in one precision: its results (`out.0`, ...) and the gradients of its inputs (`grad.x`, ...). */
export interface Traced {
  results: Record<string, Tensor>;
  gradients: Record<string, Tensor>;
}

export function trace(c: OpCase, float: DType): Traced {
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
export function feedsOf(
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
export async function run(
  device: Device,
  outputs: Record<string, Tensor>,
  feeds: Values[],
  plan = true,
): Promise<Values[]> {
  const program = await device.compile({ outputs }, { plan });
  try {
    const results: Values[] = [];
    for (const f of feeds) results.push(await program.run(readBy(outputs, f)));
    return results;
  } finally {
    program.dispose();
  }
}

/** The parameters after one update from the case's values. */
export async function update(device: Device, c: UpdateCase, float: DType, plan = true): Promise<Values> {
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
