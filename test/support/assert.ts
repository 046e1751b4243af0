import * as assert from 'uvu/assert';
import type { TypedArray } from '../../lib/graph/dtype.ts';

/** max|actual - expected| / max|expected|; the absolute error where `expected` is all zeros. NaN if any value is. */
export function relativeError(actual: ArrayLike<number>, expected: ArrayLike<number>): number {
  let error = 0;
  let scale = 0;
  for (let i = 0; i < expected.length; i++) {
    // Equal infinities differ by nothing; any other NaN must reach the result, which Math.max sees to.
    error = Math.max(error, actual[i] === expected[i] ? 0 : Math.abs(actual[i] - expected[i]));
    if (Number.isFinite(expected[i])) scale = Math.max(scale, Math.abs(expected[i]));
  }
  return error / (scale || 1);
}

/** Asserts equal lengths and a {@link relativeError} of at most `limit`. */
export function close(actual: ArrayLike<number>, expected: ArrayLike<number>, limit: number, what: string): void {
  assert.is(actual.length, expected.length, `${what}: number of elements`);
  const error = relativeError(actual, expected);
  assert.ok(error <= limit, `${what}: error ${error.toExponential(2)} exceeds ${limit.toExponential(2)}`);
}

/** Asserts that two arrays hold the same bytes, so that 0 and -0 differ and NaN equals itself. */
export function sameBits(actual: TypedArray, expected: TypedArray, what: string): void {
  const bytes = (a: TypedArray): Buffer => Buffer.from(a.buffer, a.byteOffset, a.byteLength);
  assert.ok(bytes(actual).equals(bytes(expected)), `${what}: bits differ`);
}
