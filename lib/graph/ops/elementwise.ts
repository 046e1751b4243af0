import { type DType, isFloat } from '../dtype.ts';
import {
  check,
  defineOp,
  emit1,
  fail,
  floatOf,
  type Node,
  type OpRule,
  type Shape,
  sameShape,
  type Tensor,
} from '../tensor.ts';
import { reshape } from './layout.ts';
import { sum } from './reduce.ts';

/** A tensor, or a number that stands for a constant of the other operand's dtype. */
export type Operand = Tensor | number;

/** A tensor of `shape` filled with `value`. */
export const full = (shape: Shape, value: number, dtype: DType = 'f32'): Tensor =>
  emit1('full', [], { shape, value, dtype });
defineOp('full', {
  infer: (_, { shape, dtype }) => [{ shape: shape as Shape, dtype: dtype as DType }],
  vjp: () => [],
});

/** The shape that `a` and `b` broadcast to: axes aligned at the end, a 1 stretches. */
export function broadcastShape(a: Shape, b: Shape): Shape {
  const rank = Math.max(a.length, b.length);
  return Array.from({ length: rank }, (_, i) => {
    const x = a[a.length - rank + i] ?? 1;
    const y = b[b.length - rank + i] ?? 1;
    if (x !== y && x !== 1 && y !== 1) fail(`[${a.join(',')}] and [${b.join(',')}] do not broadcast`);
    return x === 1 ? y : x;
  });
}

/** Sums `g` over the axes along which a tensor of `shape` was broadcast to `g`'s shape. */
export function sumTo(g: Tensor, shape: Shape): Tensor {
  if (sameShape(g.shape, shape)) return g;
  const lead = g.rank - shape.length;
  const axes = g.shape.map((_, i) => i).filter((i) => i < lead || (shape[i - lead] === 1 && g.shape[i] !== 1));
  return reshape(sum(g, axes, true), shape);
}

function binary(name: string, vjp: (node: Node, g: Tensor) => [Tensor | undefined, Tensor | undefined]): void {
  defineOp(name, {
    infer: ([a, b]) => [{ shape: broadcastShape(a.shape, b.shape), dtype: floatOf(a, b) }],
    vjp: (node, [g]) => {
      const grads = vjp(node, g!);
      return grads.map((d, i) => d && sumTo(d, node.inputs[i]!.shape));
    },
  });
}

const constantLike = (x: Operand, like: Operand): Tensor =>
  typeof x === 'number' ? full([], x, (like as Tensor).dtype) : x;

const apply2 = (op: string, a: Operand, b: Operand): Tensor => emit1(op, [constantLike(a, b), constantLike(b, a)]);

/** a + b, broadcasting. */
export const add = (a: Operand, b: Operand): Tensor => apply2('add', a, b);
binary('add', (_, g) => [g, g]);

/** a - b, broadcasting. */
export const sub = (a: Operand, b: Operand): Tensor => apply2('sub', a, b);
binary('sub', (_, g) => [g, neg(g)]);

/** a * b, broadcasting. */
export const mul = (a: Operand, b: Operand): Tensor => apply2('mul', a, b);
binary('mul', ({ inputs: [a, b] }, g) => [mul(g, b!), mul(g, a!)]);

/** a / b, broadcasting. */
export const div = (a: Operand, b: Operand): Tensor => apply2('div', a, b);
binary('div', ({ inputs: [, b], outputs: [y] }, g) => {
  const ga = div(g, b!);
  return [ga, neg(mul(ga, y))];
});

/** The larger of a and b, broadcasting; where they are equal the gradient goes to `a`. */
export const maximum = (a: Operand, b: Operand): Tensor => apply2('maximum', a, b);
binary('maximum', ({ inputs: [a, b] }, g) => [mul(g, greaterEqual(a!, b!)), mul(g, greater(b!, a!))]);

/** The smaller of a and b, broadcasting; where they are equal the gradient goes to `a`. */
export const minimum = (a: Operand, b: Operand): Tensor => apply2('minimum', a, b);
binary('minimum', ({ inputs: [a, b] }, g) => [mul(g, greaterEqual(b!, a!)), mul(g, greater(a!, b!))]);

/** 1 where a > b, else 0, in the operands' dtype. Its derivative is zero. */
export const greater = (a: Operand, b: Operand): Tensor => apply2('greater', a, b);
binary('greater', () => [undefined, undefined]);

/** 1 where a >= b, else 0, in the operands' dtype. Its derivative is zero. */
export const greaterEqual = (a: Operand, b: Operand): Tensor => apply2('greaterEqual', a, b);
binary('greaterEqual', () => [undefined, undefined]);

/** 1 where a equals b, else 0, in the operands' dtype. Its derivative is zero. */
export const equal = (a: Operand, b: Operand): Tensor => apply2('equal', a, b);
binary('equal', () => [undefined, undefined]);

/** `a` where cond is not 0, else `b`; the three broadcast. Unlike a product with a mask, the side not taken may be NaN. */
export function where(cond: Tensor, a: Operand, b: Operand): Tensor {
  return emit1('where', [
    cond,
    constantLike(a, typeof b === 'number' ? cond : b),
    constantLike(b, typeof a === 'number' ? cond : a),
  ]);
}
defineOp('where', {
  infer: ([cond, a, b]) => [
    { shape: broadcastShape(cond.shape, broadcastShape(a.shape, b.shape)), dtype: floatOf(cond, a, b) },
  ],
  vjp: ({ inputs: [cond, a, b] }, [g]) => [
    undefined,
    sumTo(where(cond!, g!, 0), a!.shape),
    sumTo(where(cond!, 0, g!), b!.shape),
  ],
});

const same: OpRule['infer'] = ([x]) => [{ shape: x.shape, dtype: floatOf(x) }];

function unary(name: string, vjp: (g: Tensor, x: Tensor, y: Tensor) => Tensor | undefined): (x: Tensor) => Tensor {
  defineOp(name, { infer: same, vjp: ({ inputs: [x], outputs: [y] }, [g]) => [vjp(g!, x!, y)] });
  return (x) => emit1(name, [x]);
}

export const neg = unary('neg', (g) => neg(g));
export const exp = unary('exp', (g, _, y) => mul(g, y));
/** Natural logarithm. */
export const log = unary('log', (g, x) => div(g, x));
export const sqrt = unary('sqrt', (g, _, y) => div(affine(g, 0.5), y));
/** 1 / sqrt(x). */
export const rsqrt = unary('rsqrt', (g, x, y) => mul(affine(g, -0.5), div(y, x)));
export const reciprocal = unary('reciprocal', (g, _, y) => neg(mul(g, square(y))));
export const square = unary('square', (g, x) => mul(affine(g, 2), x));
export const abs = unary('abs', (g, x) => mul(g, sign(x)));
/** -1, 0 or 1. Its derivative is zero. */
export const sign = unary('sign', () => undefined);
export const sin = unary('sin', (g, x) => mul(g, cos(x)));
export const cos = unary('cos', (g, x) => neg(mul(g, sin(x))));
export const tanh = unary('tanh', (g, _, y) => mul(g, affine(square(y), -1, 1)));
export const sigmoid = unary('sigmoid', (g, _, y) => mul(g, mul(y, affine(y, -1, 1))));

/** scale * x + shift. */
export const affine = (x: Tensor, scale: number, shift = 0): Tensor => emit1('affine', [x], { scale, shift });
defineOp('affine', { infer: same, vjp: (node, [g]) => [affine(g!, node.attrs.scale as number)] });

/** x ** exponent, elementwise. */
export const power = (x: Tensor, exponent: number): Tensor => emit1('power', [x], { exponent });
defineOp('power', {
  infer: same,
  vjp: ({ inputs: [x], attrs }, [g]) => {
    const p = attrs.exponent as number;
    return [mul(affine(g!, p), power(x!, p - 1))];
  },
});

/** x limited to [min, max]; the gradient passes where min <= x <= max. */
export const clamp = (x: Tensor, min: number, max: number): Tensor => emit1('clamp', [x], { min, max });
defineOp('clamp', {
  infer: same,
  vjp: ({ inputs: [x], attrs }, [g]) => [emit1('clampGrad', [x, g], attrs)],
});

/** x where x > 0, else slope * x. */
export const leakyRelu = (x: Tensor, slope: number): Tensor => emit1('leakyRelu', [x], { slope });
defineOp('leakyRelu', {
  infer: same,
  vjp: ({ inputs: [x], attrs }, [g]) => [emit1('leakyReluGrad', [x, g], attrs)],
});

/** max(x, 0). */
export const relu = (x: Tensor): Tensor => leakyRelu(x, 0);

/** The shape rule of a kernel that maps (x, dy) to dx, all of one shape. */
export const gradRule: OpRule = {
  infer: ([x, dy]) => {
    check(sameShape(x.shape, dy.shape), 'x and dy must have one shape');
    return [{ shape: x.shape, dtype: floatOf(x, dy) }];
  },
};
defineOp('clampGrad', gradRule);
defineOp('leakyReluGrad', gradRule);

/**
 * x in another dtype. Floats are rounded to the nearest, ties to even; they become whole numbers by truncation towards zero,
 * limited to the range of the new dtype, and 0 for NaN. Integers have no gradient.
 */
export const cast = (x: Tensor, dtype: DType): Tensor => (x.dtype === dtype ? x : emit1('cast', [x], { dtype }));
defineOp('cast', {
  infer: ([x], attrs) => [{ shape: x.shape, dtype: attrs.dtype as DType }],
  vjp: ({ inputs: [x], outputs: [y] }, [g]) => {
    return [isFloat(x!.dtype) && isFloat(y.dtype) ? cast(g!, x!.dtype) : undefined];
  },
});
