/**
 * Element types. `bf16` and `f16` are those of GPUs: the CPU computes in float32 and rounds to them. `f64` exists for the oracle of the tests;
 * `i32` for indices, `u8` for image bytes.
 */
export type DType = 'f32' | 'f64' | 'bf16' | 'f16' | 'i32' | 'u8';

/** Floats of 16 bits stand as their bits. */
export type TypedArray = Float32Array | Float64Array | Uint16Array | Int32Array | Uint8Array;

const arrays = {
  f32: Float32Array,
  f64: Float64Array,
  bf16: Uint16Array,
  f16: Uint16Array,
  i32: Int32Array,
  u8: Uint8Array,
} as const;

export const bytesOf = (dtype: DType): number => arrays[dtype].BYTES_PER_ELEMENT;

export const isHalf = (dtype: DType): boolean => dtype === 'bf16' || dtype === 'f16';

export const isFloat = (dtype: DType): boolean => dtype === 'f32' || dtype === 'f64' || isHalf(dtype);

/** The dtype of statistics over values of a floating dtype, and of what scales them: at least float32. */
export const statisticsOf = (dtype: DType): DType => (isHalf(dtype) ? 'f32' : dtype);

/** A zeroed typed array of `length` elements. */
export const arrayOf = (dtype: DType, length: number): TypedArray => new arrays[dtype](length);

/** The typed array over `length` elements at `offset` bytes of `buffer`. */
export const viewOf = (dtype: DType, buffer: ArrayBufferLike, offset: number, length: number): TypedArray =>
  new arrays[dtype](buffer as ArrayBuffer, offset, length);

/** Whether a value is the typed array of a dtype. */
export const isArrayOf = (dtype: DType, array: unknown): boolean => array instanceof arrays[dtype];
