// timeout: 900 s
// The 16-bit floats on device emu:0 (or the one that REFL_TEST_DEVICE names): every operator case of test/ops, forward and
// gradient, in bf16 and f16 against float64 of the same rounded inputs.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type DType, isFloat, type TypedArray } from '../../lib/graph/dtype.ts';
import { grad, reachable } from '../../lib/graph/grad.ts';
import { cast } from '../../lib/graph/ops/elementwise.ts';
import { lower } from '../../lib/graph/program.ts';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { fromFloat32, toFloat32 } from '../../lib/weights/half.ts';
import { cases as finishing } from '../ops/epilogue.cases.ts';
import { buildLibrary } from '../simt/build.ts';
import { close } from '../support/assert.ts';
import { type OpCase, uniforms, valuesOf } from '../support/opcase.ts';
import { cases, run } from '../support/opgraph.ts';

const name = process.env.REFL_TEST_DEVICE ?? 'emu:0';
if (name === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();
const [cpu, cuda] = [await openDevice('cpu'), await openDevice(name)];
test.after(() => {
  cpu.dispose();
  cuda.dispose();
});

type Half = 'bf16' | 'f16';
/** Half the distance between neighbours, relative to them. */
const unit = { bf16: 2 ** -9, f16: 2 ** -12 };
/** Roundings that results may be off by, of the largest: attention's slopes are rounded before sums in which they cancel. */
const roundings = (op: string): number => (op === 'attention' ? 16 : 8);

/** A case whose floating inputs are fed in `wide`, rounded to `narrow` and, like its results, seen in `wide`. */
function trace(c: OpCase, wide: DType, narrow: DType): { outputs: Record<string, Tensor>; cotangents: Tensor[] } {
  const leaves: Record<string, Tensor> = {};
  const operands: Record<string, Tensor> = {};
  for (const [key, { shape, dtype, statistics }] of Object.entries(c.inputs)) {
    leaves[key] = input(key, shape, dtype ?? wide);
    operands[key] = dtype || statistics ? leaves[key] : cast(leaves[key], narrow);
  }
  const results = [c.build(operands)].flat();
  const floats = results.filter((t) => isFloat(t.dtype));
  const wrt = Object.keys(c.inputs).filter((key) => !c.inputs[key].dtype && !c.inputs[key].nograd);
  const cotangents = floats.map((t, k) => input(`cotangent.${k}`, t.shape, wide));
  const along = cotangents.map((t, k) => cast(t, floats[k].dtype));
  const from = wrt.map((key) => leaves[key]);
  const gradients = wrt.length ? grad(floats, from, along) : [];
  const outputs = [
    ...results.map((t, k): [string, Tensor] => [`out.${k}`, isFloat(t.dtype) ? cast(t, wide) : t]),
    ...gradients.map((t, k): [string, Tensor] => [`grad.${wrt[k]}`, t]),
  ];
  return { outputs: Object.fromEntries(outputs), cotangents };
}

function rounded(values: TypedArray, half: Half): Float32Array {
  const type = half === 'f16' ? 'F16' : 'BF16';
  return toFloat32(fromFloat32(Float32Array.from(values), type), type);
}

/** Cases that say nothing of kernels in 16 bits, and why. */
const spared: Record<string, string> = {
  'cos: timestepEmbedding': 'its steps are float32, see there',
  'div: a scalar first': 'a gradient that all but cancels',
  'chain: equal between two steps': 'rounded numbers are equal where exact ones differ',
  'cast: between floats and whole numbers': 'its numbers are beyond those of f16',
};

for (const half of ['bf16', 'f16'] as const) {
  for (const c of cases) {
    const name = `${c.op}: ${c.name}`;
    const { outputs, cotangents } = trace(c, 'f32', half);
    const dtypes = reachable(Object.values(outputs)).flatMap((node) => node.outputs.map(({ dtype }) => dtype));
    if (spared[name] || dtypes.includes('f64') || !dtypes.includes(half)) continue;
    test(`${half} ${name}`, async () => {
      const next = uniforms(c.name.length);
      const feeds: Record<string, TypedArray> = {};
      for (const [key, spec] of Object.entries(c.inputs)) {
        const values = valuesOf(spec, 'f32', next);
        feeds[key] = spec.dtype || spec.statistics ? values : rounded(values, half);
      }
      cotangents.forEach((t, k) => {
        feeds[`cotangent.${k}`] = rounded(valuesOf({ shape: [...t.shape] }, 'f32', next), half);
      });
      const wide = Object.entries(feeds).map(([key, v]) => [key, v instanceof Float32Array ? Float64Array.from(v) : v]);
      const [reference] = await run(cpu, trace(c, 'f64', 'f64').outputs, [Object.fromEntries(wide)]);
      const [got] = await run(cuda, outputs, [feeds]);
      for (const key of Object.keys(outputs)) close(got[key], reference[key], roundings(c.op) * unit[half], key);
    });
  }
}

for (const half of ['bf16', 'f16'] as const) {
  for (const c of finishing) {
    test(`${half} ${c.name}: the bits of separate nodes`, async () => {
      const outputs = Object.entries(trace(c, 'f32', half).outputs).filter(([key]) => key.startsWith('out.'));
      const graph = { outputs: Object.fromEntries(outputs) };
      const next = uniforms(c.name.length);
      const values = Object.entries(c.inputs).map(([key, spec]) => [key, valuesOf(spec, 'f32', next)]);
      const compute = async (plan: boolean): Promise<Record<string, TypedArray>> => {
        using program = await cuda.compile(graph, { plan });
        const read = new Set(lower(graph).feeds.map(({ name }) => name));
        return program.run(Object.fromEntries(values.filter(([key]) => read.has(key as string))));
      };
      assert.equal(await compute(true), await compute(false));
    });
  }
}

test.run();
