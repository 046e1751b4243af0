import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { grad } from '../../lib/graph/grad.ts';
import { affine } from '../../lib/graph/ops/elementwise.ts';
import { constant, input } from '../../lib/graph/tensor.ts';
import { CLIP, type CLIPConfig, TextTransformer, VisionTransformer, vitH14 } from '../../lib/models/clip.ts';
import { initialize } from '../../lib/nn/init.ts';
import { features, pairedScores, preferenceLoss, scores } from '../../lib/reward/hps.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { codeOf, errorOf } from '../support/runtime.ts';

const small: CLIPConfig = {
  embed_dim: 4,
  vision_cfg: { image_size: 4, patch_size: 2, width: 4, layers: 1, head_width: 2 },
  text_cfg: { context_length: 5, vocab_size: 12, width: 4, heads: 2, layers: 2 },
};

test('ViT-H/14 compiles at full size, with its gradient by the images', async () => {
  using device = await openDevice('null');
  const clip = new CLIP(vitH14);
  using parameters = device.parameters();
  for (const { value } of clip.namedParameters().values()) parameters.add(value);
  const images = input('images', [2, 224, 224, 3]);
  const found = features(clip, images, input('ids', [1, 77], 'i32'), { recompute: true });
  assert.equal(
    [found.images.shape, found.texts.shape],
    [
      [2, 1024],
      [1, 1024],
    ],
  );
  const loss = preferenceLoss(clip, pairedScores(found), input('preferred', [1], 'i32'));
  const outputs = { scores: scores(found), gradient: grad(loss, [images])[0] };
  using program = await device.compile({ outputs }, { parameters });
  assert.ok(program.peakBytes < 2 ** 30, `${program.peakBytes} bytes`);
});

test('a text is read up to its end token: what pads it does not count', async () => {
  using device = await openDevice('cpu');
  const tower = new TextTransformer(small);
  using parameters = device.parameters();
  await initialize(device, parameters, tower, 1n);
  const pooled = async (...ids: number[]): Promise<number[]> => {
    const y = tower.pooled(constant(Int32Array.from(ids), [1, 5], 'i32'));
    return [...(await evaluate(device, { y }, {}, parameters)).y];
  };
  const text = await pooled(10, 3, 11, 0, 0);
  assert.equal(await pooled(10, 3, 11, 7, 2), text);
  assert.not.equal(await pooled(10, 4, 11, 0, 0), text);
  assert.not.equal(await pooled(10, 3, 5, 11, 0), text);
});

test('the softmax starts at a temperature of 0.07', async () => {
  using device = await openDevice('cpu');
  const tower = new TextTransformer(small);
  using parameters = device.parameters();
  await initialize(device, parameters, tower, 1n);
  assert.is((await parameters.read(tower.logit_scale.value))[0], Math.fround(Math.log(1 / 0.07)));
});

test('images of another size, uneven pairs and layers of another kind are refused', async () => {
  const tower = new VisionTransformer(small);
  assert.match(
    (await errorOf(() => tower.forward(input('x', [1, 4, 6, 3])))).message,
    /takes images of 4x4 pixels, got 4x6/,
  );
  const [images, texts] = [input('images', [5, 4]), input('texts', [2, 4])];
  assert.is(await codeOf(() => pairedScores({ images, texts: affine(texts, 1) })), 'ERR_SHAPE');
  const scaled = { ...small, vision_cfg: { ...small.vision_cfg, ls_init_value: 0.1 } };
  assert.throws(() => new CLIP(scaled), /vision_cfg\.ls_init_value must be null in a CLIP of this kind, got 0\.1/);
});

test.run();
