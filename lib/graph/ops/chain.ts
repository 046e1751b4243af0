import type { DType } from '../dtype.ts';
import { defineOp } from '../tensor.ts';
import { broadcastShape } from './elementwise.ts';

// Made by fuse() alone, after differentiation. `code` holds pairs of an operator, by its place in ops.json, and an argument,
// in postfix order: `input` pushes the input that its argument counts, `full` the number, and any other replaces its
// operands on top of the stack by its result; its attributes are the numbers from its argument on. `rounds` says that every
// tensor is of one 16-bit dtype and each step's result is rounded to it, as nodes' results are. Else steps compute in float32
// (float64 of such tensors), and 16-bit tensors are widened as they are read and rounded as they are written.
defineOp('chain', {
  infer: (inputs, { dtype }) => [
    { shape: inputs.map(({ shape }) => shape).reduce(broadcastShape), dtype: dtype as DType },
  ],
});
