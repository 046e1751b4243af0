import type { Draws } from '../../data/draws.ts';
import { NoiseSource } from '../../diffusion/sampling.ts';
import { cast } from '../../graph/ops/elementwise.ts';
import { input, type Shape, type Tensor } from '../../graph/tensor.ts';
import type { ForwardOptions } from '../../models/blocks.ts';
import type { ControlNet } from '../../models/controlnet.ts';
import type { ControlLDM } from '../../models/diffbir.ts';
import type { OSEDiff } from '../../models/osediff.ts';
import type { SwinIR } from '../../models/swinir.ts';
import type { Module } from '../../nn/module.ts';
import { concatenated } from '../../numbers.ts';
import type { Device, Parameters, Program, Values } from '../../runtime/index.ts';
import type { LoraSettings } from './lora.ts';
import {
  type Entry,
  lastStepsFeeds,
  narrowed,
  type Precision,
  type Restored,
  restoredByControlLDM,
  restoredByOSEDiff,
} from './restored.ts';
import {
  drawWalk,
  type NoiseModel,
  plainNoise,
  Rollout,
  type RolloutShapes,
  type WalkOptions,
  walkGraph,
} from './rollout.ts';
import type { Compat } from './session.ts';

/** A degraded image of one training step, and what is drawn for it. */
export interface Sample {
  /** [side, side, 3] in [0, 1]. */
  readonly degraded: Float32Array;
  readonly draws: Draws;
  /** What it shows, where that is known. */
  readonly text?: string;
}

/** A restorer that trains: how it restores a batch in the graph, and what that is fed. */
export interface Trainee {
  /** What trains are the trainable parameters below it. */
  readonly module: Module;
  /** What decides how it restores beside its weights, as JSON can hold it: a run that goes on must have the same. */
  readonly recipe: object;
  /** Restores `count` images of the trainee's side, with gradients. */
  restore(count: number): Restored;
  /** Values of the feeds that {@link restore} made, with the weights as they are now. */
  enter(samples: readonly Sample[]): Promise<Values>;
  /** Bytes that {@link enter} needs beside the parameters. */
  readonly peakBytes: number;
  dispose(): void;
}

/** A network from images [N, H, W, 3] in [0, 1] to images. */
export type ImageNetwork = Module & { forward(x: Tensor, options?: ForwardOptions): Tensor };

export interface NetworkParts extends Precision {
  /** A copy that does not train, whose images those of the network should stay near. */
  readonly frozen?: ImageNetwork;
  readonly options?: ForwardOptions;
}

/** A network that restores in one go: SwinIR alone, or the restorer that ships. */
export class NetworkTrainee implements Trainee {
  readonly recipe = { form: 'network' };
  readonly peakBytes = 0;
  readonly module: ImageNetwork;
  private readonly side: number;
  private readonly parts: NetworkParts;

  /** @param side of the images; {@link Sample} says what they hold */
  constructor(module: ImageNetwork, side: number, parts: NetworkParts = {}) {
    this.module = module;
    this.side = side;
    this.parts = parts;
  }

  restore(count: number): Restored {
    const { frozen, options } = this.parts;
    const degraded = input('degraded', [count, this.side, this.side, 3]);
    const through = (network: ImageNetwork, options?: ForwardOptions): Tensor =>
      cast(network.forward(narrowed(degraded, this.parts), options), degraded.dtype);
    const images = through(this.module, options);
    return { images, drift: frozen ? [[images, through(frozen)]] : [] };
  }

  async enter(samples: readonly Sample[]): Promise<Values> {
    return { degraded: concatenated(samples.map(({ degraded }) => degraded)) };
  }

  dispose(): void {}
}

export interface TextFeatures {
  readonly shape: Shape;
  /** Of the one text for all images: DiffusionReward's is empty. */
  readonly values: Float32Array;
  /** Of what an image shows, instead, where that is known. */
  readonly of?: (text: string) => Promise<Float32Array>;
  /** Tells the tokenizer that those texts are read by. */
  readonly words?: string;
}

const featuresFor = async ({ values, of }: TextFeatures, { text }: Sample): Promise<Float32Array> =>
  of && text !== undefined ? of(text) : values;

/** What restorers in latent space have in common when they train. */
export interface LatentTrainee extends Precision {
  /** Side of the images, a multiple of what the networks need. */
  readonly side: number;
  /** Features of the text that steers, [L, context_dim]. */
  readonly context: TextFeatures;
  readonly options?: ForwardOptions;
}

export interface ControlLDMTraineeParts extends LatentTrainee {
  readonly model: ControlLDM;
  /** Makes the condition's image. */
  readonly stage1: SwinIR;
  /** A copy of the ControlNet that does not train. */
  readonly frozen?: ControlNet;
  readonly walk: WalkOptions;
  /** Stable Diffusion's by default. */
  readonly noise?: NoiseModel;
  readonly compat?: Compat;
  /** Of the ControlNet's adapters, if it has any: what is told of them. */
  readonly lora?: LoraSettings;
}

/** A restorer of DiffBIR's form, whose ControlNet, or what of it is trainable, trains. */
export class ControlLDMTrainee implements Trainee {
  readonly module: Module;
  readonly recipe: object;
  private readonly parts: ControlLDMTraineeParts;
  private readonly latent: Shape;
  private readonly condition: Program;
  private readonly rollout: Rollout;

  private constructor(parts: ControlLDMTraineeParts, latent: Shape, condition: Program, rollout: Rollout) {
    this.module = parts.model.controlnet;
    const { walk, compute, context, lora, noise = plainNoise } = parts;
    this.recipe = {
      form: 'controlled',
      walk,
      compute,
      prediction: noise.prediction,
      texts: context.of ? 'captions' : 'one',
      ...(context.words && { words: context.words }),
      lora,
    };
    this.parts = parts;
    this.latent = latent;
    this.condition = condition;
    this.rollout = rollout;
  }

  /** @param parameters hold the values of all networks of `parts` */
  static async create(
    device: Device,
    parameters: Parameters,
    parts: ControlLDMTraineeParts,
  ): Promise<ControlLDMTrainee> {
    const hint = conditionOf(parts);
    const shapes = walkedShapes(parts, hint);
    const condition = await device.compile({ outputs: { hint } }, { parameters });
    try {
      const rollout = await Rollout.create(device, parameters, parts.model, shapes);
      return new ControlLDMTrainee(parts, shapes.latent, condition, rollout);
    } catch (error) {
      condition.dispose();
      throw error;
    }
  }

  /** The graphs of one image's way to the steps that have gradients: its condition, and a step of its walk. */
  static before(parts: ControlLDMTraineeParts): { condition: Tensor; step: Tensor[] } {
    const condition = conditionOf(parts);
    return { condition, step: Object.values(walkGraph(parts.model, walkedShapes(parts, condition))) };
  }

  get peakBytes(): number {
    return this.condition.peakBytes + this.rollout.peakBytes;
  }

  restore(count: number): Restored {
    const { model, frozen, walk, context, options, compute } = this.parts;
    const shape = [count, ...this.latent];
    return restoredByControlLDM(model, {
      shape,
      count: walk.traced,
      hint: input('hint', shape),
      context: input('context', [count, ...context.shape]),
      frozen,
      options,
      compute,
    });
  }

  async enter(samples: readonly Sample[]): Promise<Values> {
    const { walk, context, noise } = this.parts;
    const entries: Entry[] = [];
    const [hints, texts]: Float32Array[][] = [[], []];
    for (const sample of samples) {
      const { degraded, draws } = sample;
      const hint = (await this.condition.run({ degraded })).hint as Float32Array;
      const steps = drawWalk(draws, walk, noise);
      const text = await featuresFor(context, sample);
      entries.push(await this.rollout.enter({ hint, context: text }, steps, walk, draws.seed()));
      hints.push(hint);
      texts.push(text);
    }
    return {
      ...lastStepsFeeds(entries),
      hint: concatenated(hints),
      context: concatenated(texts),
    };
  }

  dispose(): void {
    this.condition.dispose();
    this.rollout.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The latent [1, h, w, channels] that steers the restoration of a degraded image. */
function conditionOf({ model, stage1, side, compute }: ControlLDMTraineeParts): Tensor {
  const degraded = narrowed(input('degraded', [1, side, side, 3]), { compute });
  return cast(model.encode(stage1.forward(degraded)).mean, 'f32');
}

const walkedShapes = (
  { context, compute, compat, frozen, noise }: ControlLDMTraineeParts,
  hint: Tensor,
): RolloutShapes => ({
  ...{ latent: hint.shape.slice(1), context: context.shape, compute, noise },
  idle: compat === 'official' ? frozen : undefined,
});

export interface OSEDiffTraineeParts extends LatentTrainee {
  readonly model: OSEDiff;
  /** A copy that does not train. */
  readonly frozen?: OSEDiff;
}

/** A restorer of OSEDiff's form: its adapters, or whatever of it is trainable, train. */
export class OSEDiffTrainee implements Trainee {
  readonly module: Module;
  readonly recipe: object;
  private readonly parts: OSEDiffTraineeParts;
  private readonly latent: Shape;
  private readonly noise: NoiseSource;

  private constructor(parts: OSEDiffTraineeParts, latent: Shape, noise: NoiseSource) {
    this.module = parts.model;
    const { of, words } = parts.context;
    this.recipe = { form: 'one step', compute: parts.compute, texts: of ? 'captions' : 'one', ...(words && { words }) };
    this.parts = parts;
    this.latent = latent;
    this.noise = noise;
  }

  static async create(device: Device, parts: OSEDiffTraineeParts): Promise<OSEDiffTrainee> {
    const { model, side } = parts;
    const latent = model.encode(narrowed(input('degraded', [1, side, side, 3]), parts)).mean.shape.slice(1);
    return new OSEDiffTrainee(parts, latent, await NoiseSource.create(device, latent));
  }

  get peakBytes(): number {
    return this.noise.peakBytes;
  }

  restore(count: number): Restored {
    const { model, frozen, side, context, options, compute } = this.parts;
    return restoredByOSEDiff(model, {
      degraded: input('degraded', [count, side, side, 3]),
      context: input('context', [count, ...context.shape]),
      noise: input('noise', [count, ...this.latent]),
      frozen,
      options,
      compute,
    });
  }

  async enter(samples: readonly Sample[]): Promise<Values> {
    const [noises, texts]: Float32Array[][] = [[], []];
    for (const sample of samples) {
      noises.push(await this.noise.draw(sample.draws.seed(), 0));
      texts.push(await featuresFor(this.parts.context, sample));
    }
    return {
      degraded: concatenated(samples.map(({ degraded }) => degraded)),
      context: concatenated(texts),
      noise: concatenated(noises),
    };
  }

  dispose(): void {
    this.noise.dispose();
  }
}
