import { ReflError } from '../errors.ts';
import { type DType, isHalf, statisticsOf, type TypedArray } from '../graph/dtype.ts';
import { cast } from '../graph/ops/elementwise.ts';
import { parameterLeaf, type Shape, sameShape, scope, type Tensor } from '../graph/tensor.ts';

/** How a parameter starts, as data: lib/nn/init.ts turns it into values on a device. */
export type Init =
  | 'zeros'
  | 'ones'
  | { readonly kind: 'constant'; readonly value: number }
  | { readonly kind: 'normal'; readonly std: number }
  /** Uniform on [-bound, bound). */
  | { readonly kind: 'uniform'; readonly bound: number };

const dtypes: DType[] = ['f32'];

/**
 * Runs `fn` with `dtype`, a floating one, as the dtype of the parameters it constructs; float32 outside of any. With 16 bits
 * those of norms are float32. Trainable parameters are best left in float32: layers round them to their input's 16 bits
 * at every use, and an optimizer's small steps are kept.
 */
export function withDType<T>(dtype: DType, fn: () => T): T {
  dtypes.push(dtype);
  try {
    return fn();
  } finally {
    dtypes.pop();
  }
}

/** A weight: a persistent buffer's symbolic value, its key in a checkpoint, and how it starts. */
export class Parameter {
  readonly value: Tensor;
  readonly init: Init;
  /** Key from the outermost module that was asked for names or traced; empty before that. */
  name = '';
  /** False for weights that no optimizer touches; a device may pack those once. */
  trainable = true;

  constructor(shape: Shape, init: Init, { statistics = false } = {}) {
    const dtype = dtypes.at(-1)!;
    this.value = parameterLeaf(shape, statistics ? statisticsOf(dtype) : dtype);
    this.init = init;
  }

  /** The value as it meets `x`: rounded to 16 bits where x has those. */
  beside(x: Tensor): Tensor {
    return isHalf(x.dtype) ? cast(this.value, x.dtype) : this.value;
  }
}

/** A table that official checkpoints store although shapes determine it. It is never loaded, only written. */
export class Buffer {
  readonly shape: Shape;
  readonly dtype: 'f32' | 'i32';
  readonly values: () => TypedArray;

  constructor(shape: Shape, dtype: 'f32' | 'i32', values: () => TypedArray) {
    this.shape = shape;
    this.dtype = dtype;
    this.values = values;
  }
}

/**
 * A tree of parameters. Children are the own enumerable properties that are parameters, buffers or modules, or
 * arrays and plain objects of them, so a property's path is the official checkpoint's key:
 * `this.in_layers = { 0: norm, 2: conv }` holds `in_layers.2.weight`.
 */
export abstract class Module {
  /** Path from the nearest module above; empty for the root of a tree. */
  #path = '';

  /** Every parameter by its key, in the order of construction. */
  namedParameters(): Map<string, Parameter> {
    this.#nameTree();
    return this.#collect(Parameter);
  }

  /** Every buffer by its key. */
  namedBuffers(): Map<string, Buffer> {
    return this.#collect(Buffer);
  }

  /** This module (under the empty key) and all modules below it. */
  namedModules(): Map<string, Module> {
    const found = new Map<string, Module>([['', this]]);
    for (const [key, child] of children(this)) {
      if (!(child instanceof Module)) continue;
      for (const [path, module] of child.namedModules()) found.set(path ? `${key}.${path}` : key, module);
    }
    return found;
  }

  /** Marks every parameter below as trained or not, and returns this module. */
  train(trainable: boolean): this {
    for (const parameter of this.namedParameters().values()) parameter.trainable = trainable;
    return this;
  }

  /**
   * Puts other parameters in the places of those below, of the same shapes: what `choose` returns for each. So two modules share
   * what is the same in both, or parameters that train get another dtype than the rest.
   */
  replaceParameters(choose: (key: string, parameter: Parameter) => Parameter): this {
    replaceBelow(this, '', choose);
    return this;
  }

  /** Number of values in all parameters. */
  get parameterCount(): number {
    let count = 0;
    for (const { value } of this.namedParameters().values()) count += value.size;
    return count;
  }

  /** Traces `fn` under this module's path, so that nodes and errors name the layer. */
  protected trace<T>(fn: () => T): T {
    this.#nameTree();
    return this.#path ? scope(this.#path, fn) : fn();
  }

  #collect<T extends Parameter | Buffer>(kind: new (...args: never[]) => T): Map<string, T> {
    const found = new Map<string, T>();
    for (const [key, child] of children(this)) {
      if (child instanceof kind) found.set(key, child);
      else if (child instanceof Module) {
        for (const [path, member] of child.#collect(kind)) found.set(`${key}.${path}`, member);
      }
    }
    return found;
  }

  /** A root names everything below it, each time anew: layers may have been wrapped since. */
  #nameTree(prefix = ''): void {
    if (this.#path && !prefix) return;
    for (const [key, child] of children(this)) {
      if (child instanceof Module) {
        child.#path = key;
        child.#nameTree(`${prefix}${key}.`);
      } else if (child instanceof Parameter) child.name = prefix + key;
    }
  }
}

/** A module of one tensor in, one tensor out: what LoRA may wrap and a sequence may hold. */
export abstract class Layer extends Module {
  abstract forward(x: Tensor): Tensor;
}

function replaceBelow(owner: object, prefix: string, choose: (key: string, parameter: Parameter) => Parameter): void {
  for (const [name, value] of Object.entries(owner)) {
    const key = prefix + name;
    if (value instanceof Parameter) {
      const chosen = choose(key, value);
      if (!sameShape(chosen.value.shape, value.value.shape)) {
        throw new ReflError('ERR_SHAPE', `${key} is ${value.value}: ${chosen.value} cannot take its place`);
      }
      (owner as Record<string, unknown>)[name] = chosen;
    } else if (value instanceof Module || Array.isArray(value) || isPlain(value)) {
      replaceBelow(value, `${key}.`, choose);
    }
  }
}

/** The direct children of a module with their paths, looking through arrays and plain objects. */
function* children(owner: object): Generator<[string, Parameter | Buffer | Module]> {
  for (const [key, value] of Object.entries(owner)) {
    if (value instanceof Parameter || value instanceof Buffer || value instanceof Module) yield [key, value];
    else if (Array.isArray(value) || isPlain(value)) {
      for (const [path, child] of children(value)) yield [`${key}.${path}`, child];
    }
  }
}

const isPlain = (value: unknown): value is object =>
  typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype;
