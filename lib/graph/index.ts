// The graph's public surface: symbolic tensors, every operator, derivatives and recompute segments. Nothing here needs
// the addon.
export type { DType, TypedArray } from './dtype.ts';
export { grad } from './grad.ts';
export * from './ops/activation.ts';
export * from './ops/attention.ts';
export * from './ops/compose.ts';
export * from './ops/conv2d.ts';
export {
  abs,
  add,
  affine,
  cast,
  clamp,
  cos,
  div,
  equal,
  exp,
  full,
  greater,
  greaterEqual,
  leakyRelu,
  log,
  maximum,
  minimum,
  mul,
  neg,
  type Operand,
  power,
  reciprocal,
  relu,
  rsqrt,
  sigmoid,
  sign,
  sin,
  sqrt,
  square,
  sub,
  tanh,
  where,
} from './ops/elementwise.ts';
export * from './ops/embedding.ts';
export * from './ops/layout.ts';
export * from './ops/low_pass.ts';
export * from './ops/matmul.ts';
export * from './ops/norm.ts';
export * from './ops/optim.ts';
export * from './ops/pool.ts';
export * from './ops/random.ts';
export * from './ops/reduce.ts';
export * from './ops/resample.ts';
export * from './ops/reward.ts';
export * from './ops/softmax.ts';
export { constant, input, type Node, parameterLeaf, recompute, type Shape, scope, Tensor } from './tensor.ts';
