// The face reward model's training at full size, planned without computing: memory, and dtypes that fit.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CLIP, vitH14 } from '../../lib/models/clip.ts';
import { unlock } from '../../lib/reward/frm.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { PreferenceTrainer } from '../../lib/train/frm_programs.ts';

/** Plans a step of 16 pairs; bytes beside the parameters, and of them. */
async function plan(dtype: 'f32' | 'bf16', recompute: boolean): Promise<{ peak: number; state: number }> {
  using device = await openDevice('null');
  const clip = new CLIP(vitH14);
  unlock(clip);
  using parameters = device.parameters();
  for (const { value, trainable } of clip.namedParameters().values()) parameters.add(value, { frozen: !trainable });
  const options = { batch: 16, weightDecay: 0.35, average: false, recompute, dtype };
  const trainer = new PreferenceTrainer(clip, options);
  await trainer.learner.create(parameters);
  using programs = await trainer.compile(device, parameters);
  return { peak: programs.peakBytes, state: parameters.bytes };
}

test('weights, gradients and moments take 10.1 GB in float32; 16 bits and recomputing save memory beside them', async () => {
  const plain = await plan('f32', false);
  assert.is(plain.state, 4 * (986_109_441 + 3 * 514_793_729));
  const [half, recomputed, both] = [await plan('bf16', false), await plan('f32', true), await plan('bf16', true)];
  for (const { state } of [half, recomputed, both]) assert.is(state, plain.state);
  assert.ok(half.peak < 0.65 * plain.peak && recomputed.peak < 0.3 * plain.peak && both.peak < recomputed.peak);
  // Room for weights and state on a card of 24 GB.
  assert.ok(both.peak + both.state < 16e9, `${both.peak}`);
});

test.run();
