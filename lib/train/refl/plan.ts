import type { DType } from '../../graph/dtype.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { CLIP, vitH14 } from '../../models/clip.ts';
import { ControlNet } from '../../models/controlnet.ts';
import { ControlLDM, diffbir } from '../../models/diffbir.ts';
import { type LatentDiffusion, sd21 } from '../../models/latent.ts';
import { LPIPS } from '../../models/lpips.ts';
import { OSEDiff } from '../../models/osediff.ts';
import { SwinIR } from '../../models/swinir.ts';
import type { Module } from '../../nn/module.ts';
import { unlock } from '../../reward/frm.ts';
import { frmReward } from '../../reward/reward.ts';
import { type Device, openDevice, type Parameters } from '../../runtime/index.ts';
import { type LoraSettings, trainLora } from './lora.ts';
import { lpipsLoss, paperWeights, rewardLoss, type Weighted, waveletLoss } from './objective.ts';
import type { WalkOptions } from './rollout.ts';
import { type Compat, type MovingOptions, Session } from './session.ts';
import { frozenBeside, madeIn, trainAdapters, trainControlNet, widenTrained } from './trainable.ts';
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
  readonly lora?: LoraSettings;
  readonly offload?: boolean;
}

/** What training a published model takes, in bytes. */
export interface MemoryPlan {
  /** How many values train, the judge's not among them. */
  readonly trained: number;
  /** Weights, and sums of gradients and moments of what trains. */
  readonly state: number;
  /** What the programs need beside them: of an update's batch, of walking to it, and of the judge's. */
  readonly programs: number;
  /** Moments that wait in the host's memory. */
  readonly host: number;
}

/** A trainee without values, and the graphs of what goes before its gradient. */
interface Traced {
  readonly trainee: Trainee;
  readonly model: LatentDiffusion;
  /** Of one image: what makes its condition, and a step of its walk. None where there is no walk. */
  readonly before?: { readonly condition: Tensor; readonly step: readonly Tensor[] };
}

type Make = (device: Device, parameters: Parameters, options: PlanOptions) => Promise<Traced>;

const shared = ({ side, recompute, compute }: PlanOptions) => ({
  side,
  context: { values: new Float32Array(77 * 1024), shape: [77, 1024] },
  compute: narrow(compute),
  options: { recompute },
});

const narrow = (compute: 'f32' | 'bf16'): DType | undefined => (compute === 'f32' ? undefined : compute);

const planDiffBIR: Make = async (device, parameters, options) => {
  const compute = narrow(options.compute);
  const model = madeIn(compute, () => new ControlLDM(diffbir));
  if (options.lora) trainLora(model, options.lora);
  else trainControlNet(model);
  widenTrained(model);
  const copy = madeIn(compute, () => new ControlNet(diffbir.controlnet));
  const frozen = frozenBeside(copy, model.controlnet);
  const stage1 = madeIn(compute, () => new SwinIR(diffbir.stage1)).train(false);
  hold(parameters, [model, frozen, stage1]);
  const { walk, compat } = options;
  const parts = { ...shared(options), model, frozen, stage1, walk, compat };
  const trainee = await ControlLDMTrainee.create(device, parameters, parts);
  return { trainee, model, before: ControlLDMTrainee.before(parts) };
};

const planOSEDiff: Make = async (device, parameters, options) => {
  const [model, copy] = [0, 1].map(() => {
    const made = madeIn(narrow(options.compute), () => new OSEDiff(sd21, { unet: 4, vae: 4 }));
    trainAdapters(made);
    return widenTrained(made);
  });
  const frozen = frozenBeside(copy, model);
  hold(parameters, [model, frozen]);
  return { trainee: await OSEDiffTrainee.create(device, { ...shared(options), model, frozen }), model };
};

const plans: Readonly<Record<string, Make>> = {
  'diffbir-v1': planDiffBIR,
  'diffbir-v2': planDiffBIR,
  'diffbir-v2.1': planDiffBIR,
  osediff: planOSEDiff,
  'osediff-face': planOSEDiff,
};

/** Models whose training can be planned without their files. */
export const plannedModels: readonly string[] = Object.keys(plans);

/** A published model's training on the null device: all of it traced, none of it with values. */
export interface Planned extends Traced {
  readonly device: Device;
  readonly parameters: Parameters;
  readonly terms: Readonly<Record<string, Weighted>>;
  readonly judge: CLIP;
}

/** Calls `fn` with one of {@link plannedModels}, LPIPS and a judge of HPS v2's size. */
export async function withPlanned<T>(
  name: string,
  options: PlanOptions,
  fn: (planned: Planned) => T | Promise<T>,
): Promise<T> {
  const compute = narrow(options.compute);
  using device = await openDevice('null');
  using parameters = device.parameters();
  const traced = await plans[name](device, parameters, options);
  try {
    const judge = madeIn(compute, () => new CLIP(vitH14));
    if (options.moving) unlock(judge);
    else judge.train(false);
    widenTrained(judge);
    const lpips = madeIn(compute, () => new LPIPS()).train(false);
    hold(parameters, [judge, lpips]);
    const { recompute, compat } = options;
    const antialias = compat !== 'official';
    const terms = {
      reward: { weight: paperWeights.reward, loss: rewardLoss(frmReward(judge, { compute, recompute, antialias })) },
      lpips: { weight: paperWeights.lpips, loss: lpipsLoss(lpips, compute) },
      wavelet: { weight: paperWeights.wavelet, loss: waveletLoss },
    };
    return await fn({ ...traced, device, parameters, terms, judge });
  } finally {
    traced.trainee.dispose();
  }
}

/**
 * The memory that training one of {@link plannedModels} takes by DiffusionReward's losses: everything is traced and planned at full
 * size, nothing is allocated and no file is needed.
 */
export const planMemory = (name: string, options: PlanOptions): Promise<MemoryPlan> =>
  withPlanned(name, options, async ({ device, parameters, ...models }) => {
    const caption = new Int32Array(vitH14.text_cfg.context_length);
    // Rates and weights do not change a plan.
    const recipe = { lr: 1, weightDecay: 0.01, seed: 0, drift: 1, compute: narrow(options.compute) };
    using session = new Session({ ...models, caption }, { ...options, ...recipe });
    await session.create(parameters);
    await session.compile(device, parameters, options.side);
    const { trained, peakBytes: programs, hostBytes: host } = session;
    return { trained, state: parameters.bytes, programs, host };
  });

/** Buffers for all parameters; those of several modules may be the same. */
function hold(parameters: Parameters, modules: readonly Module[]): void {
  for (const module of modules) {
    for (const { value, trainable } of module.namedParameters().values()) {
      if (!parameters.has(value)) parameters.add(value, { frozen: !trainable });
    }
  }
}
