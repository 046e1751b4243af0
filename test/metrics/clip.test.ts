// The two metrics on CLIP: CLIPIQA and LAION's aesthetic score.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { constant, input } from '../../lib/graph/tensor.ts';
import { clipPreprocess, loadAesthetic } from '../../lib/metrics/aesthetic.ts';
import { clipiqa, loadClipiqa, pairChance, promptFeatures, promptTokens } from '../../lib/metrics/clipiqa.ts';
import { AestheticPredictor } from '../../lib/models/aesthetic.ts';
import { VisionTransformer } from '../../lib/models/clip.ts';
import { ClipResNet } from '../../lib/models/clip_resnet.ts';
import { initialize } from '../../lib/nn/init.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import { rejects, stored, withFiles } from './support.ts';

const tiny = {
  embed_dim: 16,
  vision_layers: [1, 1, 1, 1],
  vision_width: 64,
  context_length: 8,
  vocab_size: 49408,
  transformer_width: 16,
  transformer_heads: 2,
  transformer_layers: 1,
};
const vision_cfg = { image_size: 28, patch_size: 14, width: 32, layers: 1, head_width: 16 };

const golden = fileURLToPath(new URL('../../../shared/golden/full/clipiqa_full.safetensors', import.meta.url));
const whereThere = existsSync(golden) ? test : test.skip;

whereThere('the prompts have the tokens of the official tokenizer', async () => {
  assert.equal(promptTokens(), await readTensor(await openSafetensors(golden), 'in.tokens'));
});

test('a score is the mean over pairs of the chance of the good prompt', async () => {
  using device = await openDevice('cpu');
  using parameters = device.parameters();
  const clip = new ClipResNet(tiny);
  parameters.add(clip.logit_scale.value, { frozen: true, data: Float32Array.of(Math.log(2)) });
  // A picture along the first axis, and prompts whose cosines with it are 1 and 0 in turn for one pair, 0 for the others.
  const features = constant(
    Float32Array.from({ length: 16 }, (_, i) => Number(i === 0)),
    [1, 16],
    'f32',
  );
  const texts = constant(
    Float32Array.from({ length: 160 }, (_, i) => Number(i === 0 || (i >= 16 && i % 16 === 1))),
    [10, 16],
    'f32',
  );
  const { score, logits } = pairChance(clip, features, texts);
  const values = await evaluate(device, { score, logits }, {}, parameters);
  assert.ok(Math.abs(values.logits[0] - 2) < 1e-6);
  assert.ok(Math.abs(values.score[0] - (4 * 0.5 + 1 / (1 + Math.exp(-2))) / 5) < 1e-6);
});

test('CLIPIQA takes pictures of any size', async () => {
  using device = await openDevice('cpu');
  using parameters = device.parameters();
  const clip = new ClipResNet(tiny);
  await initialize(device, parameters, clip, 1n);
  const { texts } = await evaluate(device, { texts: promptFeatures(clip) }, {}, parameters);
  for (const [h, w] of [
    [32, 32],
    [75, 131],
  ]) {
    const picture = constant(
      Float32Array.from({ length: h * w * 3 }, (_, i) => (i % 7) / 7),
      [1, h, w, 3],
      'f32',
    );
    const score = clipiqa(clip, picture, input('texts', [10, 16]));
    const values = await evaluate(device, { score }, { texts }, parameters);
    assert.ok(values.score[0] > 0 && values.score[0] < 1, `${h}x${w}: ${values.score[0]}`);
  }
});

test("OpenAI's RN50 loads with what else its file holds; a transformer's is refused", async () => {
  using device = await openDevice('null');
  await withFiles(async (write) => {
    const tensors = stored(new ClipResNet(tiny));
    const extra = (shape: number[]) => ({ shape, dtype: 'F32' as const });
    tensors.set('input_resolution', extra([])).set('visual.attnpool.positional_embedding', extra([50]));
    using parameters = device.parameters();
    await loadClipiqa(parameters, new ClipResNet(tiny), await write(tensors));
    using others = device.parameters();
    const vit = new VisionTransformer({ vision_cfg, embed_dim: 16 });
    const file = await write(stored(vit, (key) => `visual.${key}`));
    await rejects(loadClipiqa(others, new ClipResNet(tiny), file), 'ERR_WEIGHTS', /defined on RN50/);
  });
});

test('the aesthetic score takes the middle square', async () => {
  using device = await openDevice('cpu');
  // 5 too wide: Python rounds 2.5 to 2, so columns 2 to 225 stay.
  const [h, w] = [224, 229];
  const column = Float32Array.from({ length: h * w * 3 }, (_, i) => (Math.floor(i / 3) % w) / 255);
  const { square } = await evaluate(device, { square: clipPreprocess(constant(column, [1, h, w, 3], 'f32')) });
  const red = (column: number): number => (column / 255 - 0.48145466) / 0.26862954;
  assert.is(square.length, 224 * 224 * 3);
  assert.ok(Math.abs(square[0] - red(2)) < 1e-5);
  assert.ok(Math.abs(square[223 * 3] - red(225)) < 1e-5);
});

test('the aesthetic score loads from both files in either order, and names what is missing', async () => {
  using device = await openDevice('null');
  await withFiles(async (write) => {
    const networks = () => ({
      visual: new VisionTransformer({ vision_cfg, embed_dim: 768 }),
      predictor: new AestheticPredictor(),
    });
    const { visual, predictor } = networks();
    const tower = stored(visual, (key) => `visual.${key}`);
    // The text tower's part.
    tower.set('positional_embedding', { shape: [2], dtype: 'F32' });
    const [clip, head] = [await write(tower), await write(stored(predictor))];
    for (const files of [
      [clip, head],
      [head, clip],
    ]) {
      using parameters = device.parameters();
      await loadAesthetic(parameters, networks(), files);
    }
    using parameters = device.parameters();
    await rejects(loadAesthetic(parameters, networks(), [clip]), 'ERR_WEIGHTS', /missing the predictor's layers/);
    await rejects(loadAesthetic(parameters, networks(), [head]), 'ERR_WEIGHTS', /missing CLIP ViT-L\/14/);
  });
});

test.run();
