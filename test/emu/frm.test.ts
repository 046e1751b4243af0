// timeout: 600 s
// A step of a face reward model whose towers compute in bf16, on device emu:0 (or the one that REFL_TEST_DEVICE names), against
// float32 on the CPU.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CLIP } from '../../lib/models/clip.ts';
import { initialize } from '../../lib/nn/init.ts';
import { unlock } from '../../lib/reward/frm.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { PreferenceTrainer } from '../../lib/train/frm_programs.ts';
import { tinyClip } from '../reward/support.ts';
import { buildLibrary } from '../simt/build.ts';
import { uniforms, valuesOf } from '../support/opcase.ts';

const name = process.env.REFL_TEST_DEVICE ?? 'emu:0';
if (name === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();

const batch = {
  images: valuesOf({ shape: [4, 8, 8, 3] }, 'f32', uniforms(3)) as Float32Array,
  ids: Int32Array.from({ length: 18 }, (_, i) => (i % 9 === 4 ? 516 : i % 9 < 4 ? 7 * i : 0)),
  shares: Float32Array.of(0.9, 0.1, 0, 1),
};

interface Step {
  loss: number;
  norm: number;
  /** The projection's moment: a tenth of its gradient. */
  moment: Float32Array;
  scale: Float32Array;
}

async function step(kind: string, dtype: 'f32' | 'bf16', recompute: boolean): Promise<Step> {
  using device = await openDevice(kind, { threads: 1 });
  const clip = new CLIP(tinyClip);
  unlock(clip, { imageGroups: 2, textLayers: 1 });
  using parameters = device.parameters();
  await initialize(device, parameters, clip, 5n);
  const trainer = new PreferenceTrainer(clip, {
    ...{ batch: 2, weightDecay: 0, average: true, recompute, dtype },
  });
  await trainer.learner.create(parameters);
  using programs = await trainer.compile(device, parameters);
  const { loss } = await programs.add(batch, 0);
  const norm = await programs.update(1, 1e-3);
  const moment = (await parameters.read(trainer.learner.leaves.get('m.visual.proj')!)) as Float32Array;
  return { loss, norm, moment, scale: (await parameters.read(clip.logit_scale.value)) as Float32Array };
}

const distance = (a: Float32Array, b: Float32Array): number =>
  Math.hypot(...a.map((v, i) => v - b[i])) / Math.hypot(...b);

test('bf16 gives the loss and the gradients of float32 but for rounding, recomputed or not', async () => {
  const exact = await step('cpu', 'f32', false);
  const full = await step(name, 'f32', false);
  assert.ok(Math.abs(full.loss - exact.loss) < 1e-5 && distance(full.moment, exact.moment) < 1e-4);
  const half = await step(name, 'bf16', false);
  // A few dozen roundings of 2^-9 on the way, and cosines times 14.
  assert.ok(
    half.loss !== exact.loss && Math.abs(half.loss - exact.loss) < 0.05 * exact.loss,
    `${half.loss} ${exact.loss}`,
  );
  const error = distance(half.moment, exact.moment);
  assert.ok(error > 0 && error < 0.1, `${error}`);
  assert.ok(Math.abs(half.scale[0] - exact.scale[0]) < 3e-3);
  const again = await step(name, 'bf16', true);
  assert.equal([again.loss, again.norm], [half.loss, half.norm]);
});

test.run();
