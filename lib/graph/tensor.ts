import { ReflError } from '../errors.ts';
import { type DType, isArrayOf, isFloat, type TypedArray } from './dtype.ts';
import { type Attrs, opTable } from './table.ts';

export type Shape = readonly number[];

/** What an operator's shape rule returns for one output. */
export interface Spec {
  readonly shape: Shape;
  readonly dtype: DType;
}

/**
 * A symbolic tensor: one output of a {@link Node}. It owns no memory and is never changed, so nothing needs
 * disposing; bytes exist only while a compiled program runs, or in a device's parameter buffers.
 */
export class Tensor {
  readonly node: Node;
  readonly index: number;
  readonly shape: Shape;
  readonly dtype: DType;

  constructor(node: Node, index: number, spec: Spec) {
    this.node = node;
    this.index = index;
    this.shape = spec.shape;
    this.dtype = spec.dtype;
  }

  get rank(): number {
    return this.shape.length;
  }

  get size(): number {
    return sizeOf(this.shape);
  }

  toString(): string {
    return `${this.node.op}${show(this)}`;
  }
}

/** One application of an operator. `id` grows with creation, so creation order is a valid execution order. */
export class Node {
  readonly id: number;
  readonly op: string;
  readonly inputs: readonly (Tensor | undefined)[];
  readonly attrs: Attrs;
  readonly outputs: readonly Tensor[];
  /** Path of the layer that was being traced, such as `input_blocks.1.0`. */
  readonly layer: string;
  /** The recompute segment this node was traced in, if any. */
  readonly recompute: object | undefined;
  /** Leaves only: the feed's name, or the constant's bytes. */
  readonly leaf: Leaf | undefined;

  constructor(op: string, inputs: readonly (Tensor | undefined)[], attrs: Attrs, specs: readonly Spec[], leaf?: Leaf) {
    this.id = nextId++;
    this.op = op;
    this.inputs = inputs;
    this.attrs = attrs;
    this.outputs = specs.map((spec, i) => new Tensor(this, i, spec));
    this.layer = scopes.join('.');
    this.recompute = segments.at(-1);
    this.leaf = leaf;
  }
}

export type Leaf =
  | { readonly kind: 'input'; readonly name: string }
  | { readonly kind: 'parameter' }
  | { readonly kind: 'constant'; readonly data: TypedArray };

/** The two rules an operator brings: output shapes, and the gradients of its inputs. */
export interface OpRule {
  /** Shapes and dtypes of the outputs; throws through {@link fail} on operands that do not fit. */
  infer(inputs: readonly Tensor[], attrs: Attrs): Spec[];
  /**
   * Gradients of the inputs given those of the outputs (undefined where an output has none); undefined for an
   * input that has none. Omitted where the operator has no derivative of its own.
   */
  vjp?(node: Node, grads: readonly (Tensor | undefined)[]): (Tensor | undefined)[];
}

let nextId = 0;
const scopes: string[] = [];
const segments: object[] = [];
const rules = new Map<string, OpRule>();

/** Registers the rules of an operator that stands in ops.json. */
export function defineOp(name: string, rule: OpRule): void {
  if (!opTable[name]) throw new ReflError('ERR_GRAPH', `operator ${name} is not in ops.json`);
  rules.set(name, rule);
}

export const ruleOf = (name: string): OpRule | undefined => rules.get(name);

/** Applies operator `op`, returning all of its outputs. Throws a shape error that names layer and operands. */
export const emit = (op: string, inputs: readonly (Tensor | undefined)[], attrs: Attrs = {}): readonly Tensor[] =>
  emitNode(op, inputs, attrs).outputs;

/** As {@link emit}, returning the node: for operators that write parameters and have no output. */
export function emitNode(op: string, inputs: readonly (Tensor | undefined)[], attrs: Attrs = {}): Node {
  const row = opTable[op];
  const rule = rules.get(op);
  if (!row || !rule) throw new ReflError('ERR_GRAPH', `unknown operator ${op}`);
  for (const [name, kind] of Object.entries(row.attrs)) {
    if (attrs[name] === undefined && !kind.endsWith('?'))
      throw new ReflError('ERR_GRAPH', `${op} needs the attribute ${name}`);
  }
  row.inputs.forEach((name, i) => {
    if (!inputs[i] && !name.endsWith('?')) throw new ReflError('ERR_GRAPH', `${op} needs the input ${name}`);
  });
  current = { op, inputs };
  return new Node(op, inputs, attrs, rule.infer(inputs as readonly Tensor[], attrs));
}

/** Applies an operator with one output. */
export const emit1 = (op: string, inputs: readonly (Tensor | undefined)[], attrs: Attrs = {}): Tensor =>
  emit(op, inputs, attrs)[0];

let current: { op: string; inputs: readonly (Tensor | undefined)[] } | undefined;

/** Throws the tracing error of the operator whose rule is running: layer, operator, operands, and `why`. */
export function fail(why: string): never {
  const where = scopes.length ? `${scopes.join('.')}: ` : '';
  const operands = current?.inputs.map((t) => (t ? show(t) : 'none')).join(', ');
  throw new ReflError('ERR_SHAPE', `${where}${current?.op}(${operands}): ${why}`);
}

/** Throws unless `ok`; see {@link fail}. */
export function check(ok: boolean, why: string): asserts ok {
  if (!ok) fail(why);
}

/** Checks that all given tensors share one floating dtype, and returns it. */
export function floatOf(...tensors: (Tensor | undefined)[]): DType {
  const dtype = tensors[0]!.dtype;
  check(isFloat(dtype), `needs a floating dtype, got ${dtype}`);
  for (const t of tensors) check(!t || t.dtype === dtype, `mixes dtypes ${dtype} and ${t?.dtype}`);
  return dtype;
}

const show = (t: Tensor): string => `${t.dtype}[${t.shape.join(',')}]`;

export const sizeOf = (shape: Shape): number => shape.reduce((a, b) => a * b, 1);

export const sameShape = (a: Shape, b: Shape): boolean => a.length === b.length && a.every((d, i) => d === b[i]);

function checkShape(shape: Shape): void {
  if (!shape.every((d) => Number.isInteger(d) && d >= 0)) {
    throw new ReflError('ERR_SHAPE', `a shape needs whole numbers >= 0, got [${shape.join(',')}]`);
  }
}

/** A feed: bytes given anew at every run, under `name`. */
export function input(name: string, shape: Shape, dtype: DType = 'f32'): Tensor {
  checkShape(shape);
  return new Node('input', [], {}, [{ shape, dtype }], { kind: 'input', name }).outputs[0];
}

/** A constant whose values (row-major) are uploaded when the program is compiled. */
export function constant(data: TypedArray, shape: Shape, dtype: DType): Tensor {
  checkShape(shape);
  if (!isArrayOf(dtype, data) || data.length !== sizeOf(shape)) {
    const got = `${data.constructor.name} of ${data.length} values`;
    throw new ReflError('ERR_SHAPE', `a constant ${dtype}[${shape.join(',')}] was given a ${got}`);
  }
  return new Node('constant', [], {}, [{ shape, dtype }], { kind: 'constant', data }).outputs[0];
}

/** A persistent device buffer; lib/nn wraps it with a name and an initialiser. */
export function parameterLeaf(shape: Shape, dtype: DType): Tensor {
  checkShape(shape);
  return new Node('parameter', [], {}, [{ shape, dtype }], { kind: 'parameter' }).outputs[0];
}

/** Runs `fn` with `name` appended to the layer path that nodes and errors carry. */
export function scope<T>(name: string, fn: () => T): T {
  scopes.push(name);
  try {
    return fn();
  } finally {
    scopes.pop();
  }
}

/**
 * Traces `fn` as a recompute segment: its inner tensors are not kept for the backward pass; `grad` traces the
 * segment a second time from its inputs instead.
 */
export function recompute<T>(fn: () => T): T {
  segments.push({});
  try {
    return fn();
  } finally {
    segments.pop();
  }
}

/** Runs `fn` under the layer path `layer`, whatever the current one is. */
export function asLayer<T>(layer: string, fn: () => T): T {
  const saved = scopes.splice(0, scopes.length, ...(layer ? [layer] : []));
  try {
    return fn();
  } finally {
    scopes.splice(0, scopes.length, ...saved);
  }
}

/** Re-applies `node` to other inputs, outside any recompute segment and under its own layer name. */
export const cloneNode = (node: Node, inputs: readonly (Tensor | undefined)[]): Node =>
  asLayer(node.layer, () => new Node(node.op, inputs, node.attrs, node.outputs));
