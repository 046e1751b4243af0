/** Element types. `f64` exists for the oracle of the tests; `i32` for indices, `u8` for image bytes. */
export type DType = 'f32' | 'f64' | 'i32' | 'u8';

export type TypedArray = Float32Array | Float64Array | Int32Array | Uint8Array;

const arrays = { f32: Float32Array, f64: Float64Array, i32: Int32Array, u8: Uint8Array } as const;

export const dtypes = Object.keys(arrays) as readonly DType[];

export const bytesOf = (dtype: DType): number => arrays[dtype].BYTES_PER_ELEMENT;

export const isFloat = (dtype: DType): boolean => dtype === 'f32' || dtype === 'f64';

/** A zeroed typed array of `length` elements. */
export const arrayOf = (dtype: DType, length: number): TypedArray => new arrays[dtype](length);

/** The typed array over `length` elements at `offset` bytes of `buffer`. */
export const viewOf = (dtype: DType, buffer: ArrayBufferLike, offset: number, length: number): TypedArray =>
  new arrays[dtype](buffer as ArrayBuffer, offset, length);

/** The dtype that a typed array holds, or undefined. */
export const dtypeOf = (array: unknown): DType | undefined => dtypes.find((d) => array instanceof arrays[d]);
