import type { Shape } from '../graph/tensor.ts';

/** A table of numbers in rows, whatever order its file has it in. */
export interface NumberArray {
  readonly shape: Shape;
  readonly values: Float64Array;
}

/** Values that lie column by column, in rows. */
export function inRows(values: Float64Array, shape: Shape): Float64Array {
  const result = new Float64Array(values.length);
  const index = shape.map(() => 0);
  for (let at = 0; at < values.length; at++) {
    let place = 0;
    index.forEach((i, axis) => {
      place = place * shape[axis] + i;
    });
    result[place] = values[at];
    for (let axis = 0; axis < shape.length && ++index[axis] === shape[axis]; axis++) index[axis] = 0;
  }
  return result;
}
