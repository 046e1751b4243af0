import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { diffbir } from '../models/diffbir.ts';
import type { Settings } from '../restore/image_model.ts';
import { openImageModel } from '../restore/open.ts';
import { type ModelBench, timed } from './model_bench.ts';
import { officialFiles, writeOfficial } from './official.ts';
import { randomWeights } from './random_weights.ts';

/** Pixels a side of the picture that is restored. */
const side = 512;
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
        await writeOfficial(folder, officialFiles(name, diffbir, randomWeights(dtype === 'f32' ? 'F32' : 'BF16')));
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
