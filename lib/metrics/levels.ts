import { affine, cast, clamp } from '../graph/ops/elementwise.ts';
import type { Tensor } from '../graph/tensor.ts';

/** x limited to 0 to 255 and rounded to whole numbers, as 8-bit pictures are; no gradient passes. */
export const wholeLevels = (x: Tensor): Tensor => cast(cast(affine(clamp(x, 0, 255), 1, 0.5), 'i32'), x.dtype);
