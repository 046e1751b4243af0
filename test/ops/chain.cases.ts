import * as ops from '../../lib/graph/ops/elementwise.ts';
import { cast, type Operand } from '../../lib/graph/ops/elementwise.ts';
import { opTable } from '../../lib/graph/table.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import type { CaseInput, OpCase } from '../support/opcase.ts';

const { add, affine, div, mul, neg, sub } = ops;
const named = ops as unknown as Record<string, (...args: Operand[]) => Tensor>;

/** Attributes of the operators that have some, in the order of their functions' parameters. */
const attributes: Record<string, number[]> = { affine: [1.5, -0.25], clamp: [0.7, 1.4], leakyRelu: [0.25] };

/** Every operator that may be a step, between two others. */
const each = Object.keys(opTable)
  .filter((op) => opTable[op].chains && !op.endsWith('Grad'))
  .map(
    (op): OpCase => ({
      name: `${op} between two steps`,
      op: 'chain',
      inputs: { x: { shape: [5, 29], range: [0.5, 2] }, z: { shape: [5, 29], range: [0.5, 2] } },
      build: ({ x, z }) => {
        const operands = [affine(x, 1.1, 0.05), z].slice(0, opTable[op].inputs.length);
        return add(named[op](...operands, ...(attributes[op] ?? [])), 1);
      },
    }),
  );

function layout(name: string, shapes: Record<string, number[]>): OpCase {
  const inputs = Object.fromEntries(
    Object.entries(shapes).map(([key, shape]): [string, CaseInput] => [key, { shape, range: [0.5, 2] }]),
  );
  return { name, op: 'chain', inputs, build: ({ a, b, c }) => sub(mul(a, b), affine(neg(mul(c, b)), 0.5, 1)) };
}

export const cases: OpCase[] = [
  ...each,
  layout('equal shapes', { a: [3, 700], b: [3, 700], c: [3, 700] }),
  layout('numbers of images and channels', { a: [2, 3, 5, 16], b: [2, 1, 1, 1], c: [2, 3, 5, 16] }),
  layout('short rows', { a: [300, 3], b: [3], c: [300, 3] }),
  layout('alternating axes', { a: [2, 1, 3, 1], b: [2, 5, 3, 4], c: [2, 5, 1, 4] }),
  layout('one element', { a: [1, 1], b: [], c: [1] }),
  {
    name: 'noise is added, and x0 predicted from it',
    op: 'chain',
    inputs: {
      x: { shape: [2, 4, 4, 3] },
      noise: { shape: [2, 4, 4, 3] },
      signal: { shape: [2, 1, 1, 1], range: [0.5, 1] },
      sigma: { shape: [2, 1, 1, 1], range: [0.1, 0.5] },
    },
    build: ({ x, noise, signal, sigma }) => {
      const noisy = add(mul(x, signal), mul(noise, sigma));
      return [noisy, div(sub(noisy, mul(affine(noise, 0.9, 0.01), sigma)), signal)];
    },
  },
  {
    name: 'four values on the stack, gradients by all of six inputs',
    op: 'chain',
    inputs: Object.fromEntries([...'abcdef'].map((key) => [key, { shape: [33], range: [0.5, 2] as [number, number] }])),
    build: ({ a, b, c, d, e, f }) => sub(a, sub(b, sub(c, add(d, mul(e, f))))),
  },
  {
    name: 'float32 in the middle of what may be 16 bits',
    op: 'chain',
    inputs: { x: { shape: [4, 24] }, scale: { shape: [24], statistics: true } },
    build: ({ x, scale }) => cast(mul(affine(cast(x, scale.dtype), 3), scale), x.dtype),
  },
];
