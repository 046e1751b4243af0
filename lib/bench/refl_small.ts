import { affine } from '../graph/ops/elementwise.ts';
import { randomNormal } from '../graph/ops/random.ts';
import { constant, type Tensor } from '../graph/tensor.ts';
import { CLIP } from '../models/clip.ts';
import { ControlNet } from '../models/controlnet.ts';
import { ControlLDM, type DiffBIRConfig } from '../models/diffbir.ts';
import { LPIPS } from '../models/lpips.ts';
import { SwinIR } from '../models/swinir.ts';
import { initialize } from '../nn/init.ts';
import type { Module, Parameter } from '../nn/module.ts';
import { frmReward } from '../reward/reward.ts';
import type { Device, Parameters } from '../runtime/index.ts';
import { lpipsLoss, paperWeights, rewardLoss, waveletLoss } from '../train/refl/objective.ts';
import { paperWalk } from '../train/refl/rollout.ts';
import { type Compat, paperJudge, Session } from '../train/refl/session.ts';
import { copyValues, trainControlNet } from '../train/refl/trainable.ts';
import { ControlLDMTrainee, type ControlLDMTraineeParts } from '../train/refl/trainees.ts';
import { fill } from './timing.ts';

const encoder = {
  in_channels: 4,
  model_channels: 64,
  channel_mult: [1, 2],
  num_res_blocks: 1,
  attention_resolutions: [2],
  num_head_channels: 32,
  use_linear_in_transformer: true,
  context_dim: 64,
} as const;

/** DiffBIR's form, much smaller, for images of 64 x 64. */
export const smallDiffBIR: DiffBIRConfig = {
  unet: { ...encoder, out_channels: 4 },
  controlnet: { ...encoder, hint_channels: 4 },
  vae: {
    embed_dim: 4,
    ddconfig: { in_channels: 3, out_ch: 3, ch: 32, ch_mult: [1, 2, 2], num_res_blocks: 1, z_channels: 4 },
  },
  text: { embed_dim: 64, text_cfg: { context_length: 8, vocab_size: 514, width: 64, heads: 2, layers: 2 } },
  stage1: {
    img_size: 16,
    in_chans: 3,
    embed_dim: 24,
    depths: [2],
    num_heads: [2],
    window_size: 8,
    mlp_ratio: 2,
    sf: 4,
    unshuffle: true,
    unshuffle_scale: 4,
  },
};
/** Side of its images. */
export const smallSide = 64;
const tokens = 8;
const judgeConfig = {
  embed_dim: 32,
  vision_cfg: { image_size: 32, patch_size: 8, width: 64, layers: 2, head_width: 32 },
  text_cfg: { context_length: tokens, vocab_size: 514, width: 32, heads: 2, layers: 2 },
};

/** Values for kernels and matrices that begin as zeros, which no trained network has, and through which no gradient passes. */
function awake(module: Module, seed: number): Map<Parameter, Tensor> {
  const asleep = [...module.namedParameters().values()].filter(({ init, value }) => init === 'zeros' && value.rank > 1);
  return new Map(
    asleep.map((parameter, i) => {
      const { shape } = parameter.value;
      const deviation = 1 / Math.sqrt(shape.slice(1).reduce((a, b) => a * b, 1));
      const state = constant(Int32Array.of(seed, 0, 0, i), [4], 'i32');
      return [parameter, affine(randomNormal(state, shape), deviation)];
    }),
  );
}

/** {@link smallDiffBIR} with random weights, ready to train. */
export async function smallParts(
  device: Device,
  parameters: Parameters,
): Promise<Omit<ControlLDMTraineeParts, 'walk' | 'compat'>> {
  const model = new ControlLDM(smallDiffBIR);
  trainControlNet(model);
  const frozen = new ControlNet(smallDiffBIR.controlnet).train(false);
  const stage1 = new SwinIR(smallDiffBIR.stage1).train(false);
  for (const [i, module] of [model, stage1].entries()) {
    await initialize(device, parameters, module, BigInt(i), awake(module, i));
  }
  await copyValues(parameters, frozen, model.controlnet);
  const context = { values: new Float32Array(tokens * encoder.context_dim), shape: [tokens, encoder.context_dim] };
  return { model, frozen, stage1, side: smallSide, context };
}

/** A training run of {@link smallDiffBIR} with random weights: all of its 50 steps, its losses and its learning judge. */
export async function smallRefl(
  device: Device,
  { accumulate, compat }: { accumulate: number; compat?: Compat },
): Promise<{ step(step: number): Promise<void>; dispose(): void }> {
  const parameters = device.parameters();
  const lpips = new LPIPS({ vgg_channels: [16, 'M', 32, 'M', 64] }).train(false);
  const judge = new CLIP(judgeConfig);
  for (const [i, module] of [lpips, judge].entries()) await initialize(device, parameters, module, BigInt(2 + i));
  const parts = { ...(await smallParts(device, parameters)), walk: paperWalk, compat };
  const trainee = await ControlLDMTrainee.create(device, parameters, parts);
  const terms = {
    reward: {
      weight: paperWeights.reward,
      loss: rewardLoss(frmReward(judge, { antialias: compat !== 'official' })),
    },
    lpips: { weight: paperWeights.lpips, loss: lpipsLoss(lpips) },
    wavelet: { weight: paperWeights.wavelet, loss: waveletLoss },
  };
  const caption = Int32Array.from({ length: tokens }, (_, i) => (i ? 0 : 513));
  const recipe = { lr: 5e-5, weightDecay: 0.01, seed: 231, drift: paperWeights.drift.diffbir, moving: paperJudge };
  const session = new Session({ trainee, terms, judge, caption }, { ...recipe, batch: 1, accumulate, compat });
  await session.create(parameters);
  await session.compile(device, parameters, smallSide);
  const images = fill(new Float32Array(accumulate * smallSide ** 2 * 3), 5).map((v) => Math.abs(v));
  return {
    async step(step) {
      await session.step(step, { degraded: images, clean: images });
    },
    dispose() {
      session.dispose();
      trainee.dispose();
      parameters.dispose();
    },
  };
}
