import type { Draws } from '../../data/draws.ts';
import { weightedSum } from '../../diffusion/denoise.ts';
import { NoiseSource, Sampling } from '../../diffusion/sampling.ts';
import { alphasCumprod, leadingTimesteps } from '../../diffusion/schedule.ts';
import { ddimSteps, levelsOf, type Prediction, type Step } from '../../diffusion/steps.ts';
import { ReflError } from '../../errors.ts';
import { cast } from '../../graph/ops/elementwise.ts';
import { mean } from '../../graph/ops/reduce.ts';
import { input, type Shape, type Tensor } from '../../graph/tensor.ts';
import type { ControlNet } from '../../models/controlnet.ts';
import type { ControlLDM } from '../../models/diffbir.ts';
import type { Device, Parameters, Program } from '../../runtime/index.ts';
import { type Entry, narrowed, type Precision } from './restored.ts';

/** How images are walked to the steps that have gradients. */
export interface WalkOptions {
  /** Steps of DDIM from noise to image. */
  readonly steps: number;
  /** How many at the end have gradients. */
  readonly traced: number;
  /** Noise of each step; `uniform`: as much as a number that is drawn from [0, 1) for every step says. */
  readonly eta: number | 'uniform';
  /** Where the walk may end: at the last step, or one of so many before it, drawn evenly. */
  readonly ends: number;
  /** The first timestep; the state there is the condition, noised. Left out: the whole way, from noise. */
  readonly from?: number;
}

/** What DiffusionReward's code does: 50 steps with an eta each, ending at t = 1 or 21, the last one with a gradient. */
export const paperWalk: WalkOptions = { steps: 50, traced: 1, eta: 'uniform', ends: 2 };

/** What the network predicts, and at which levels of noise it learned to. */
export interface NoiseModel {
  readonly prediction: Prediction;
  readonly alphas: Float64Array;
}

/** Stable Diffusion's. */
export const plainNoise: NoiseModel = { prediction: 'eps', alphas: alphasCumprod() };

/** The steps of one image's walk, first one first. Throws ERR_OPTION where there are fewer than have gradients. */
export function drawWalk(
  draws: Draws,
  { steps, traced, eta, ends, from = Infinity }: WalkOptions,
  { alphas, prediction } = plainNoise,
): Step[] {
  const timesteps = leadingTimesteps(steps)
    .filter((t) => t <= from)
    .reverse();
  const etas = timesteps.map(() => (eta === 'uniform' ? draws.uniform() : eta));
  const walk = ddimSteps(levelsOf(alphas, [...timesteps, 0]), prediction, etas);
  const length = walk.length - draws.below(ends);
  if (length < traced) {
    throw new ReflError('ERR_OPTION', `a walk of ${length} steps has no ${traced} to differentiate`);
  }
  return walk.slice(0, length);
}

/** The condition of one image, as values: its latent and the features of its text. */
export interface ConditionValues {
  readonly hint: Float32Array;
  readonly context: Float32Array;
}

/** Of one image. */
export interface RolloutShapes extends Precision {
  /** [h, w, channels], of the condition's latent too. */
  readonly latent: Shape;
  /** Of the text's features, [L, context_dim]. */
  readonly context: Shape;
  readonly noise?: NoiseModel;
  /** Runs on every step, too, for nothing, as in the published code. */
  readonly idle?: ControlNet;
}

/** A step of one image's walk: the prediction as `output`. */
export function walkGraph(model: ControlLDM, shapes: RolloutShapes): Record<string, Tensor> {
  const fed = (name: string, shape: Shape): Tensor => narrowed(input(name, shape), shapes);
  const [x, hint] = ['x', 'hint'].map((name) => fed(name, [1, ...shapes.latent]));
  const context = fed('context', [1, ...shapes.context]);
  const timesteps = input('timesteps', [1], 'i32');
  const unread = shapes.idle?.forward(x, hint, timesteps, context) ?? [];
  return {
    output: cast(model.predict(x, timesteps, { hint, context }), 'f32'),
    ...Object.fromEntries(unread.map((feature, i) => [`unread.${i}`, mean(feature)])),
  };
}

/** Walks images to the steps that have gradients, one image at a time, by the weights as they are at that time. */
export class Rollout {
  private readonly predict: Program;
  private readonly sampling: Sampling;
  private readonly noise: NoiseSource;
  private readonly mix: Program;
  private readonly alphas: Float64Array;

  private constructor(predict: Program, sampling: Sampling, noise: NoiseSource, mix: Program, { alphas } = plainNoise) {
    this.alphas = alphas;
    this.predict = predict;
    this.sampling = sampling;
    this.noise = noise;
    this.mix = mix;
  }

  /** @param shapes of one image's latents, and of its text's features */
  static async create(
    device: Device,
    parameters: Parameters,
    model: ControlLDM,
    shapes: RolloutShapes,
  ): Promise<Rollout> {
    const one = [1, ...shapes.latent];
    const made: { dispose(): void }[] = [];
    try {
      const predict = await device.compile({ outputs: walkGraph(model, shapes) }, { parameters });
      made.push(predict);
      const sampling = await Sampling.create(device, one);
      made.push(sampling);
      const noise = await NoiseSource.create(device, one);
      made.push(noise);
      const y = weightedSum(input('weights', [2]), [input('hint', one), input('noise', one)]);
      return new Rollout(predict, sampling, noise, await device.compile({ outputs: { y } }), shapes.noise);
    } catch (error) {
      for (const part of made) part.dispose();
      throw error;
    }
  }

  /** Bytes of its programs beside the parameters. */
  get peakBytes(): number {
    return [this.predict, this.sampling, this.noise, this.mix].reduce((sum, { peakBytes }) => sum + peakBytes, 0);
  }

  /**
   * Where an image enters its last `traced` steps. Everything random depends on `seed` alone.
   *
   * @param walk of {@link drawWalk}
   */
  async enter(
    { hint, context }: ConditionValues,
    walk: readonly Step[],
    { traced, from }: Pick<WalkOptions, 'traced' | 'from'>,
    seed: bigint,
  ): Promise<Entry> {
    const before = walk.slice(0, -traced);
    const start = await this.noise.draw(seed, 0);
    const noise = (i: number): Promise<Float32Array> => this.noise.draw(seed, i + 1);
    const x = await this.sampling.run({
      steps: before,
      start: from === undefined ? start : await this.noised(hint, start, walk[0].timestep),
      noise,
      predict: async (state, { timestep }) => {
        const feeds = { x: state, timesteps: Int32Array.of(timestep), hint, context };
        return (await this.predict.run(feeds)).output as Float32Array;
      },
    });
    const rest = walk.slice(-traced);
    return { x, steps: rest, noise: await Promise.all(rest.slice(1).map((_, i) => noise(before.length + i))) };
  }

  private async noised(hint: Float32Array, noise: Float32Array, timestep: number): Promise<Float32Array> {
    const alpha = this.alphas[timestep];
    const weights = Float32Array.of(Math.sqrt(alpha), Math.sqrt(1 - alpha));
    return (await this.mix.run({ weights, hint, noise })).y as Float32Array;
  }

  dispose(): void {
    this.predict.dispose();
    this.sampling.dispose();
    this.noise.dispose();
    this.mix.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
