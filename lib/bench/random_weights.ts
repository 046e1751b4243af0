import type { Module } from '../nn/module.ts';
import type { Source } from '../weights/write.ts';
import { fill } from './timing.ts';

/** Random numbers of mean 0 and variance 1/12 that weights are cut from, again and again. */
const supply = 1 << 16;

/**
 * Random weights, for files stored in `dtype`: matrices of about the size that keeps activations as they are, norms that scale by 1. They
 * are made as they are written.
 */
export function randomWeights(dtype: 'F32' | 'BF16'): (module: Module, prefix?: string) => Map<string, Source> {
  const numbers = fill(new Float32Array(supply), 7);
  return (module, prefix = '') =>
    new Map(
      [...module.namedParameters()].map(([key, { value, init }]) => {
        const scale = value.rank > 1 ? Math.sqrt((12 * value.shape[0]) / value.size) : 0;
        const shift = init === 'ones' ? 1 : 0;
        const data = (): Float32Array => {
          const [values, block] = [new Float32Array(value.size), numbers.map((v) => shift + scale * v)];
          for (let i = 0; i < values.length; i += supply) values.set(block.subarray(0, values.length - i), i);
          return values;
        };
        return [prefix + key, { dtype, shape: value.shape, data }];
      }),
    );
}
