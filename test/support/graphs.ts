import type { DType } from '../../lib/graph/dtype.ts';
import { gelu, silu } from '../../lib/graph/ops/activation.ts';
import { abs, add, affine, cast, clamp, div, exp, mul, neg, square, sub } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { linear } from '../../lib/graph/ops/matmul.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { type Graph, lower } from '../../lib/graph/program.ts';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import type { Device } from '../../lib/runtime/index.ts';
import { sameBits } from './assert.ts';
import { uniforms, valuesOf } from './opcase.ts';
import { random } from './random.ts';

/**
 * A random graph of elementwise operators and a few products over tensors of a few shapes that broadcast to one another.
 * Inputs and results are float32; between them it computes in `dtype`, and here and there in bf16, or float32 where that is 16 bits.
 */
export function randomGraph(seed: number, dtype: DType = 'f32'): Graph {
  const { int, pick, next } = random(seed);
  const other = dtype === 'f32' ? 'bf16' : 'f32';
  const leaf = (name: string, shape: number[]): Tensor => cast(input(name, shape), dtype);
  const weights = Object.fromEntries([1, 35].map((width) => [width, leaf(`w${width}`, [width, width])]));
  const pool = [[6, 35], [6, 1], [35], [], [2, 6, 35]].map((shape, i) => leaf(`i${i}`, shape));
  const any = (): Tensor => (next() < 0.7 ? pool[int(Math.max(0, pool.length - 3), pool.length - 1)] : pick(pool));
  const makers: ((t: Tensor) => Tensor)[] = [
    (t) => add(t, any()),
    (t) => sub(any(), t),
    (t) => mul(t, any()),
    (t) => div(t, affine(abs(any()), 1, 2)),
    (t) => mul(t, t),
    (t) => neg(t),
    (t) => square(clamp(t, -2, 2)),
    (t) => exp(clamp(t, -2, 1)),
    (t) => affine(t, 0.75, -0.25),
    (t) => add(t, 0.3),
    (t) => silu(t),
    (t) => sum(t, [-1], true),
    (t) => cast(neg(affine(cast(t, other), 1.1, 0.3)), dtype),
    (t) => cast(cast(t, other), dtype),
    (t) => reshape(reshape(t, [t.size]), t.shape),
    (t) => linear(t, weights[t.shape.at(-1)!]),
    (t) => gelu(add(linear(t, weights[t.shape.at(-1)!]), any())),
  ];
  for (let i = int(1, 40); i > 0; i--) {
    const t = any();
    if (t.rank > 0) pool.push(pick(makers)(t));
  }
  const outputs = Object.fromEntries(Array.from({ length: int(1, 5) }, (_, i) => [`out${i}`, cast(any(), 'f32')]));
  const computed = pool.filter((t) => !t.node.leaf);
  const taps = Object.fromEntries(Array.from({ length: int(0, 2) }, (_, i) => [`tap${i}`, pick(computed)]));
  return { outputs, taps: computed.length ? taps : {} };
}

/** Asserts that a graph's results as planned are the bits of those as traced, for values by `seed`. */
export async function sameAsUnfused(device: Device, graph: Graph, seed: number): Promise<void> {
  const { feeds, tensors } = lower(graph);
  const next = uniforms(seed);
  const values = Object.fromEntries(
    feeds.map(({ name, tensor }) => [name, valuesOf({ shape: [...tensors[tensor].shape] }, 'f32', next)]),
  );
  using traced = await device.compile(graph, { plan: false });
  using planned = await device.compile(graph);
  const [expected, actual] = [await traced.run(values), await planned.run(values)];
  for (const name of Object.keys(graph.outputs)) sameBits(actual[name], expected[name], `seed ${seed}, ${name}`);
}
