import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { l2Normalize } from '../graph/ops/compose.ts';
import { matmul } from '../graph/ops/matmul.ts';
import { input } from '../graph/tensor.ts';
import { VisionTransformer, vitH14 } from '../models/clip.ts';
import { loadWeights } from '../weights/load.ts';
import { openWeights } from '../weights/open.ts';
import { writeSafetensors } from '../weights/write.ts';
import { type ModelBench, timed } from './model_bench.ts';
import { randomWeights } from './random_weights.ts';
import { fill } from './timing.ts';
import { workOf } from './work.ts';

/** The image tower of HPS v2 and FaceRewardModel at full size, from a file that is written first: one picture's score for a text's feature. */
function tower(dtype: 'f32' | 'bf16'): ModelBench {
  const stored = dtype === 'f32' ? 'float32' : 'bfloat16';
  return {
    name: `vit-h-14-${stored}`,
    describe: `ViT-H/14's image tower with random weights, stored and kept in ${stored}, scores a picture of 224 x 224 pixels`,
    onRequest: true,
    async run(device, options) {
      const folder = await mkdtemp(join(tmpdir(), 'refl-bench-'));
      try {
        const vision = new VisionTransformer(vitH14).train(false);
        const path = join(folder, 'tower.safetensors');
        await writeSafetensors(path, randomWeights(dtype === 'f32' ? 'F32' : 'BF16')(vision));
        using parameters = device.parameters({ packed: dtype === 'f32' ? undefined : dtype });
        await loadWeights(parameters, vision, await openWeights(path));
        const [height, width] = vision.imageSize;
        const pictures = input('pictures', [1, height, width, 3]);
        const text = input('text', [1, vitH14.embed_dim]);
        const y = matmul(l2Normalize(vision.forward(pictures)), text, { transposeB: true });
        using program = await device.compile({ outputs: { y } }, { parameters });
        const feeds = {
          pictures: fill(new Float32Array(pictures.size), 0),
          text: fill(new Float32Array(text.size), 1),
        };
        const { seconds, loopDelay } = await timed({ score: () => program.run(feeds, options) }, options);
        return { times: [{ name: 'score', seconds: seconds.score, flops: workOf([y]).flops }], loopDelay };
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
  };
}

export const towerBenches: readonly ModelBench[] = [tower('f32'), tower('bf16')];
