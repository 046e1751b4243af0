import { readFileSync } from 'node:fs';

/**
 * How an attribute is written down: every kind is encoded for native code as a list of numbers. One ending in `?` may be
 * left out, which is an empty list.
 */
export type AttrKind = 'int' | 'float' | 'bool' | 'ints' | 'floats' | 'ints?' | 'floats?' | `enum:${string}`;

/** One row of ops.json. `inputs` ending in `?` may be absent; `group` repeats after them. */
export interface OpRow {
  readonly family: string;
  readonly inputs: readonly string[];
  readonly group?: readonly string[];
  readonly outputs: readonly string[];
  readonly attrs: Readonly<Record<string, AttrKind>>;
  /** Inputs (by name, those of the group too) whose buffer output 0 may take over when they die here. */
  readonly inplace?: readonly string[];
  /** True where {@link fuse} may make it a step of a `chain`: its attributes are numbers. */
  readonly chains?: boolean;
  /** Inputs (by name) that {@link fuse} may take from a product, which then does this operator before it writes. */
  readonly finishes?: readonly string[];
  /** True where {@link fuse} may make a cast of its 16-bit result to float32 part of it, as it may with products that finish. */
  readonly widens?: boolean;
  /** Group members (by name) that the operator overwrites: persistent buffers, never arena tensors. */
  readonly writes?: readonly string[];
  /** True where the output is the input's bytes under another shape. */
  readonly view?: boolean;
}

/** The operator table: the one list that TypeScript and native code both read. */
export const opTable: Readonly<Record<string, OpRow>> = JSON.parse(
  readFileSync(new URL('../../ops.json', import.meta.url), 'utf8'),
).ops;

/** The name by which ops.json calls input `i` of an operator. */
export function inputName({ inputs, group }: OpRow, i: number): string {
  return i < inputs.length ? inputs[i] : group![(i - inputs.length) % group!.length];
}

export type AttrValue = number | boolean | string | readonly number[];
export type Attrs = Readonly<Record<string, AttrValue>>;

/** Encodes an attribute of kind `kind` as the numbers native code reads. */
export function encodeAttr(kind: AttrKind, value: AttrValue | undefined): number[] {
  if (value === undefined) return [];
  if (kind.startsWith('enum:')) {
    const index = kind.slice(5).split(',').indexOf(String(value));
    if (index < 0) throw new Error(`attribute value ${value} is none of ${kind.slice(5)}`);
    return [index];
  }
  if (/^(int|float)s/.test(kind)) return [...(value as readonly number[])];
  return [Number(value)];
}
