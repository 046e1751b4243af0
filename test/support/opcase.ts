import type { DType } from '../../lib/graph/dtype.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';

/** One input of an {@link OpCase}. */
export interface CaseInput {
  shape: number[];
  /** Left out: the floating dtype under test. */
  dtype?: DType;
  /** Bounds of the uniform random values; [-1, 1] when left out. Whole numbers are drawn from [low, high). */
  range?: [number, number];
  /** Row-major values instead of random ones. */
  values?: number[];
  /** True where the case is not differentiated with respect to this input. */
  nograd?: boolean;
}

/**
 * One use of an operator at a small size. The same declaration serves the gradient check, float32 against float64,
 * planned against unplanned programs, and the bench.
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
