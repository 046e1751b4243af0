import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { diffbir } from '../models/diffbir.ts';
import type { Module } from '../nn/module.ts';
import type { Settings } from '../restore/image_model.ts';
import { openImageModel } from '../restore/open.ts';
import type { Source } from '../weights/write.ts';
import { type ModelBench, timed } from './model_bench.ts';
import { officialFiles, writeOfficial } from './official.ts';
import { fill } from './timing.ts';

/** Pixels a side of the picture that is restored. */
const side = 512;
/** Random numbers of mean 0 and variance 1/12 that weights are cut from, again and again. */
const supply = 1 << 16;

/** Random weights of about the size that keeps activations as they are; norms scale by 1. They are made as they are written. */
function weightsOf(dtype: 'F32' | 'BF16'): (module: Module, prefix?: string) => Map<string, Source> {
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

/**
 * A whole restoration of 512 x 512 pixels from files in the official layout, written into the system's temporary folder (5 GB and
 * more in float32) and removed afterwards. Only on request.
 */
function restorer(name: 'diffbir-v1' | 'osediff-face', dtype: 'f32' | 'bf16', settings: Settings): ModelBench {
  const stored = dtype === 'f32' ? 'float32' : 'bfloat16';
  return {
    name: `${name}-${stored}`,
    describe: `${name} with random weights, stored and kept in ${stored}, restores ${side} x ${side} pixels`,
    onRequest: true,
    async run(device, options) {
      const folder = await mkdtemp(join(tmpdir(), 'refl-bench-'));
      try {
        await writeOfficial(folder, officialFiles(name, diffbir, weightsOf(dtype === 'f32' ? 'F32' : 'BF16')));
        const model = await openImageModel(device, name, { weights: folder, dtype });
        try {
          const data = new Uint8Array(side * side * 3).map((_, i) => (i * 7919) >>> 3);
          const run = () =>
            model.restore([{ width: side, height: side, data }], {
              ...settings,
              batch: 1,
              seed: 0,
              signal: options.signal,
            });
          const { seconds, loopDelay } = await timed({ restore: run }, options);
          return { times: [{ name: `${name} restore`, seconds: seconds.restore }], loopDelay };
        } finally {
          model.dispose();
        }
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
  };
}

export const restorerBenches: readonly ModelBench[] = (['f32', 'bf16'] as const).flatMap((dtype) => [
  restorer('osediff-face', dtype, {}),
  restorer('diffbir-v1', dtype, { steps: 2 }),
]);
