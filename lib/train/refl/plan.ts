import type { DType } from '../../graph/dtype.ts';
import { CLIP, vitH14 } from '../../models/clip.ts';
import { ControlNet } from '../../models/controlnet.ts';
import { ControlLDM, diffbir } from '../../models/diffbir.ts';
import { sd21 } from '../../models/latent.ts';
import { LPIPS } from '../../models/lpips.ts';
import { OSEDiff } from '../../models/osediff.ts';
import { SwinIR } from '../../models/swinir.ts';
import { type Module, withDType } from '../../nn/module.ts';
import { unlock } from '../../reward/frm.ts';
import { frmReward } from '../../reward/reward.ts';
import { type Device, openDevice, type Parameters } from '../../runtime/index.ts';
import { lpipsLoss, paperWeights, rewardLoss, waveletLoss } from './objective.ts';
import type { WalkOptions } from './rollout.ts';
import { type Compat, type MovingOptions, Session } from './session.ts';
import { frozenBeside, trainAdapters, trainControlNet, widenTrained } from './trainable.ts';
import { ControlLDMTrainee, OSEDiffTrainee, type Trainee } from './trainees.ts';

export interface PlanOptions {
  /** Side of the images. */
  readonly side: number;
  readonly batch: number;
  readonly accumulate: number;
  readonly recompute: boolean;
  readonly walk: WalkOptions;
  /** Left out: the judge stays as it is. */
  readonly moving?: MovingOptions;
  /** What networks compute in; what trains is float32 in any case. */
  readonly compute: 'f32' | 'bf16';
  readonly compat?: Compat;
}

/** What training a published model takes, in bytes. */
export interface MemoryPlan {
  /** How many values train, the judge's not among them. */
  readonly trained: number;
  /** Weights, and sums of gradients and moments of what trains. */
  readonly state: number;
  /** What the programs need beside them: of an update's batch, of walking to it, and of the judge's. */
  readonly programs: number;
}

type Make = (
  device: Device,
  parameters: Parameters,
  half: <T>(fn: () => T) => T,
  options: PlanOptions,
) => Promise<Trainee>;

const shared = ({ side, recompute, compute }: PlanOptions) => ({
  side,
  context: { values: new Float32Array(77 * 1024), shape: [77, 1024] },
  compute: narrow(compute),
  options: { recompute },
});

const narrow = (compute: 'f32' | 'bf16'): DType | undefined => (compute === 'f32' ? undefined : compute);

const planDiffBIR: Make = async (device, parameters, half, options) => {
  const model = half(() => new ControlLDM(diffbir));
  trainControlNet(model);
  widenTrained(model);
  const frozen = half(() => new ControlNet(diffbir.controlnet)).train(false);
  const stage1 = half(() => new SwinIR(diffbir.stage1)).train(false);
  hold(parameters, [model, frozen, stage1]);
  const { walk, compat } = options;
  const parts = { ...shared(options), model, frozen, stage1, walk, compat };
  return ControlLDMTrainee.create(device, parameters, parts);
};

const planOSEDiff: Make = async (device, parameters, half, options) => {
  const [model, copy] = [0, 1].map(() => half(() => new OSEDiff(sd21, { unet: 4, vae: 4 })));
  trainAdapters(model);
  widenTrained(model);
  const frozen = frozenBeside(copy, model);
  hold(parameters, [model, frozen]);
  return OSEDiffTrainee.create(device, { ...shared(options), model, frozen });
};

const plans: Readonly<Record<string, Make>> = {
  'diffbir-v1': planDiffBIR,
  'diffbir-v2': planDiffBIR,
  osediff: planOSEDiff,
  'osediff-face': planOSEDiff,
};

/** Models whose training can be planned without their files. */
export const plannedModels: readonly string[] = Object.keys(plans);

/**
 * The memory that training one of {@link plannedModels} takes by DiffusionReward's losses, with LPIPS and a judge of HPS v2's size:
 * everything is traced and planned at full size, nothing is allocated and no file is needed.
 */
export async function planMemory(name: string, options: PlanOptions): Promise<MemoryPlan> {
  const compute = narrow(options.compute);
  const half = <T>(fn: () => T): T => (compute ? withDType(compute, fn) : fn());
  using device = await openDevice('null');
  using parameters = device.parameters();
  const trainee = await plans[name](device, parameters, half, options);
  try {
    const clip = half(() => new CLIP(vitH14));
    if (options.moving) unlock(clip);
    else clip.train(false);
    widenTrained(clip);
    const lpips = half(() => new LPIPS()).train(false);
    hold(parameters, [clip, lpips]);
    const { recompute } = options;
    const terms = {
      reward: { weight: paperWeights.reward, loss: rewardLoss(frmReward(clip, { compute, recompute })) },
      lpips: { weight: paperWeights.lpips, loss: lpipsLoss(lpips, compute) },
      wavelet: { weight: paperWeights.wavelet, loss: waveletLoss },
    };
    const models = { trainee, terms, judge: clip, caption: new Int32Array(vitH14.text_cfg.context_length) };
    // Rates and weights do not change a plan.
    const recipe = { lr: 1, weightDecay: 0.01, seed: 0, drift: 1 };
    using session = new Session(models, { ...options, ...recipe, compute });
    await session.create(parameters);
    await session.compile(device, parameters, options.side);
    return { trained: session.trained, state: parameters.bytes, programs: session.peakBytes };
  } finally {
    trainee.dispose();
  }
}

/** Buffers for all parameters; those of several modules may be the same. */
function hold(parameters: Parameters, modules: readonly Module[]): void {
  for (const module of modules) {
    for (const { value, trainable } of module.namedParameters().values()) {
      if (!parameters.has(value)) parameters.add(value, { frozen: !trainable });
    }
  }
}
