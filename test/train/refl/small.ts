// Small restorers with small judges, whose values depend on nothing, and what they train on.
import type { PairSource } from '../../../lib/data/pairs.ts';
import type { DType } from '../../../lib/graph/dtype.ts';
import { add } from '../../../lib/graph/ops/elementwise.ts';
import type { Tensor } from '../../../lib/graph/tensor.ts';
import { OSEDiff } from '../../../lib/models/osediff.ts';
import { SwinIR } from '../../../lib/models/swinir.ts';
import { Conv2d } from '../../../lib/nn/layers.ts';
import { Module } from '../../../lib/nn/module.ts';
import type { Device, Parameters } from '../../../lib/runtime/index.ts';
import type { ReflOptions } from '../../../lib/train/refl/refl.ts';
import type { ReflModels } from '../../../lib/train/refl/session.ts';
import {
  copyValues,
  frozenBeside,
  madeIn,
  trainAdapters,
  trainControlNet,
  widenTrained,
} from '../../../lib/train/refl/trainable.ts';
import { ControlLDMTrainee, NetworkTrainee, OSEDiffTrainee, type Trainee } from '../../../lib/train/refl/trainees.ts';
import { tinyDiffBIR } from '../../restore/latent_support.ts';
import { smallLatent } from '../../support/latent.ts';
import { fill, networks, numbers, sides, terms, tokens } from './support.ts';

export const side = sides.image;

/** Photographs with a structure, and blurrier versions. */
export const pairs: PairSource = {
  size: side,
  async batch(step, count) {
    const size = side * side * 3;
    const clean = Float32Array.from({ length: count * size }, (_, i) => {
      return 0.5 + 0.4 * Math.sin(0.9 * (i % size) + step + Math.floor(i / size));
    });
    return { clean, degraded: clean.map((v) => 0.3 + 0.4 * v) };
  },
};

/** A network that starts as the identity: x and a convolution of zeros. */
class Residual extends Module {
  readonly conv = new Conv2d(3, 3, 3, { padding: 1, init: 'zeros' });
  forward(x: Tensor): Tensor {
    return add(x, this.conv.forward(x));
  }
}

export const options: Omit<ReflOptions, 'out'> = {
  steps: 6,
  batch: 1,
  accumulate: 2,
  lr: 1e-2,
  weightDecay: 0,
  seed: 5,
  drift: 1,
  moving: { every: 2, lr: 1e-2, weight: 0.1, weightDecay: 0.35, clip: 1 },
  checkpointEvery: 2,
};

export const kinds = ['network', 'diffbir', 'osediff'] as const;
export type Kind = (typeof kinds)[number];

/** A trainee with its judges; all values depend on nothing. */
export async function made(
  device: Device,
  kind: Kind,
  compute?: DType,
): Promise<{ models: ReflModels; parameters: Parameters }> {
  const parameters = device.parameters();
  const { model, frozen, lpips, clip } = networks(compute ?? 'f32');
  widenTrained(clip);
  fill(parameters, lpips, 1200, true);
  fill(parameters, clip, 1300);
  const context = { values: numbers(8, tokens * 6) as Float32Array, shape: [tokens, 6] };
  const trainees: Record<Kind, () => Promise<Trainee>> = {
    network: async () => {
      const module = new Residual();
      for (const { value } of module.namedParameters().values()) parameters.add(value);
      return new NetworkTrainee(module, side, { compute });
    },
    diffbir: async () => {
      const stage1 = madeIn(compute, () => new SwinIR(tinyDiffBIR.stage1));
      trainControlNet(model);
      for (const network of [model, frozen]) widenTrained(network);
      fill(parameters, stage1, 600, true);
      fill(parameters, model, 1);
      await copyValues(parameters, frozen, model.controlnet);
      const walk = { steps: 4, traced: 1, eta: 'uniform', ends: 2 } as const;
      return ControlLDMTrainee.create(device, parameters, { model, stage1, frozen, side, context, walk, compute });
    },
    osediff: async () => {
      const [own, copy] = [0, 1].map(() => {
        const osediff = madeIn(compute, () => new OSEDiff(smallLatent, { unet: 2, vae: 2 }));
        trainAdapters(osediff);
        return widenTrained(osediff);
      });
      const frozen = frozenBeside(copy, own);
      fill(parameters, own, 1);
      await copyValues(parameters, frozen, own);
      return OSEDiffTrainee.create(device, { model: own, frozen, side, context, compute });
    },
  };
  const trainee = await trainees[kind]();
  return {
    parameters,
    models: { trainee, terms: terms({ clip, lpips }, compute), judge: clip, caption: Int32Array.of(10, 3, 4, 11, 0) },
  };
}
