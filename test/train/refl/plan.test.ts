// Memory of whole training steps at full size, as the plan has it: no kernel runs, and nothing is allocated.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { CLIP, vitH14 } from '../../../lib/models/clip.ts';
import { ControlNet } from '../../../lib/models/controlnet.ts';
import { ControlLDM, diffbir } from '../../../lib/models/diffbir.ts';
import { sd21 } from '../../../lib/models/latent.ts';
import { LPIPS } from '../../../lib/models/lpips.ts';
import { OSEDiff } from '../../../lib/models/osediff.ts';
import { SwinIR } from '../../../lib/models/swinir.ts';
import { type Module, withDType } from '../../../lib/nn/module.ts';
import { unlock } from '../../../lib/reward/frm.ts';
import { frmReward } from '../../../lib/reward/reward.ts';
import { type Device, openDevice, type Parameters } from '../../../lib/runtime/index.ts';
import { lpipsLoss, paperWeights, rewardLoss, waveletLoss } from '../../../lib/train/refl/objective.ts';
import { paperWalk } from '../../../lib/train/refl/rollout.ts';
import { paperJudge, Session } from '../../../lib/train/refl/session.ts';
import { frozenBeside, trainAdapters, trainControlNet, widenTrained } from '../../../lib/train/refl/trainable.ts';
import { ControlLDMTrainee, OSEDiffTrainee, type Trainee } from '../../../lib/train/refl/trainees.ts';

const test = suite<{ device: Device }>('plan', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('null');
});
test.after(({ device }) => device.dispose());

const compute = 'bf16';
const half = <T>(fn: () => T): T => withDType(compute, fn);
const shared = {
  side: 512,
  context: { values: new Float32Array(77 * 1024), shape: [77, 1024] },
  compute,
  options: { recompute: true },
} as const;

/** Buffers for all parameters; those of several modules may be the same. */
function hold(parameters: Parameters, modules: readonly Module[]): void {
  for (const module of modules) {
    for (const { value, trainable } of module.namedParameters().values()) {
      if (!parameters.has(value)) parameters.add(value, { frozen: !trainable });
    }
  }
}

/** Bytes of everything a step of DiffusionReward needs, batch 1, in bf16 with float32 masters. */
async function bytesOf(device: Device, parameters: Parameters, trainee: Trainee): Promise<number> {
  const clip = half(() => new CLIP(vitH14));
  unlock(clip);
  widenTrained(clip);
  const lpips = half(() => new LPIPS()).train(false);
  hold(parameters, [clip, lpips]);
  const terms = {
    reward: { weight: paperWeights.reward, loss: rewardLoss(frmReward(clip, { compute, recompute: true })) },
    lpips: { weight: paperWeights.lpips, loss: lpipsLoss(lpips, compute) },
    wavelet: { weight: paperWeights.wavelet, loss: waveletLoss },
  };
  const models = { trainee, terms, judge: clip, caption: new Int32Array(77) };
  const options = {
    ...{ batch: 1, accumulate: 4, lr: 5e-5, weightDecay: 0.01, seed: 231, drift: 1e-4 },
    compute,
  } as const;
  using session = new Session(models, { ...options, moving: paperJudge, recompute: true });
  await session.create(parameters);
  await session.compile(device, parameters, shared.side);
  return parameters.bytes + session.peakBytes;
}

const limit = (bytes: number, gigabytes: number): void =>
  assert.ok(bytes < gigabytes * 1e9, `${(bytes / 1e9).toFixed(2)} GB of ${gigabytes}`);

test("DiffBIR's ControlNet and the face reward model train within 24 GB", async ({ device }) => {
  const model = half(() => new ControlLDM(diffbir));
  trainControlNet(model);
  widenTrained(model);
  const frozen = half(() => new ControlNet(diffbir.controlnet)).train(false);
  const stage1 = half(() => new SwinIR(diffbir.stage1)).train(false);
  using parameters = device.parameters();
  hold(parameters, [model, frozen, stage1]);
  const parts = { ...shared, model, frozen, stage1, walk: paperWalk };
  const trainee = await ControlLDMTrainee.create(device, parameters, parts);
  assert.is(model.controlnet.parameterCount, 363_153_280);
  limit(await bytesOf(device, parameters, trainee), 24);
});

test("OSEDiff's adapters and the face reward model train within 16 GB", async ({ device }) => {
  const [model, copy] = [0, 1].map(() => half(() => new OSEDiff(sd21, { unet: 4, vae: 4 })));
  trainAdapters(model);
  widenTrained(model);
  const frozen = frozenBeside(copy, model);
  using parameters = device.parameters();
  hold(parameters, [model, frozen]);
  const trainee = await OSEDiffTrainee.create(device, { ...shared, model, frozen });
  const trained = [...model.namedParameters().values()].filter(({ trainable }) => trainable);
  // 4,055,712 and 369,356 of the adapters, 11,840 of the first convolution.
  assert.is(
    trained.reduce((sum, { value }) => sum + value.size, 0),
    4_436_908,
  );
  limit(await bytesOf(device, parameters, trainee), 16);
});

test.run();
