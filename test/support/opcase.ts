import { arrayOf, type DType, isFloat, isHalf, type TypedArray } from '../../lib/graph/dtype.ts';
import { type Node, sizeOf, type Tensor } from '../../lib/graph/tensor.ts';
import { fromFloat32 } from '../../lib/weights/half.ts';

/** One input of an {@link OpCase}. */
export interface CaseInput {
  shape: number[];
  /** Left out: the floating dtype under test. */
  dtype?: DType;
  /** Bounds of the uniform random values; [-1, 1] when left out. Whole numbers are drawn from [low, high). */
  range?: [number, number];
  /** Row-major values instead of random ones. */
  values?: number[];
  /** True for what stays in float32 where the dtype under test has 16 bits: what scales statistics. */
  statistics?: boolean;
  /** True where the case is not differentiated with respect to this input. */
  nograd?: boolean;
}

/**
 * One use of an operator at a small size. The same declaration serves the gradient check, float32 against float64, and
 * planned against unplanned programs.
 */
export interface OpCase {
  name: string;
  /** The row of ops.json that the case exercises. */
  op: string;
  /** Further rows it covers, such as the operator's own backward kernels. */
  also?: string[];
  inputs: Record<string, CaseInput>;
  build(t: Record<string, Tensor>): Tensor | Tensor[];
  /** Largest allowed max|f32 - f64| / max|f64| of outputs and gradients; 1e-5 when left out. */
  tolerance?: number;
}

/** One use of an operator that writes parameters; `build` returns its node. */
export interface UpdateCase extends Omit<OpCase, 'build' | 'also'> {
  /** Parameters by name, with their values before the update. */
  parameters: Record<string, CaseInput>;
  build(t: Record<string, Tensor>): Node;
}

/**
 * Uniform numbers of [0, 1) from a 32-bit xorshift generator (Marsaglia 2003): the same at every run, and quite
 * separate from the generator under test.
 */
export function uniforms(seed: number): () => number {
  let state = (Math.imul(seed + 1, 0x9e3779b1) | 1) >>> 0;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}

/**
 * The values of a case's input in `float` (where it has no dtype of its own). They are float32 numbers in either of the
 * wide ones, so that both precisions start from the same; in 16 bits, those rounded.
 */
export function valuesOf(spec: CaseInput, float: DType, next: () => number): TypedArray {
  const dtype = spec.dtype ?? float;
  const values = isHalf(dtype) ? new Float32Array(sizeOf(spec.shape)) : arrayOf(dtype, sizeOf(spec.shape));
  const [low, high] = spec.range ?? [-1, 1];
  for (let i = 0; i < values.length; i++) {
    const v = spec.values ? spec.values[i] : low + (high - low) * next();
    values[i] = isFloat(dtype) ? Math.fround(v) : Math.floor(v);
  }
  return isHalf(dtype) ? fromFloat32(values as Float32Array, dtype === 'f16' ? 'F16' : 'BF16') : values;
}
