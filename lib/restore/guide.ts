import { flatness, guideLoss, guideUnit } from '../diffusion/guidance.ts';
import type { Step } from '../diffusion/steps.ts';
import { ReflError } from '../errors.ts';
import { grad } from '../graph/grad.ts';
import { mul, sub } from '../graph/ops/elementwise.ts';
import { slice } from '../graph/ops/layout.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { LatentDiffusion } from '../models/latent.ts';
import type { RunOptions } from '../runtime/index.ts';
import type { Settings } from './image_model.ts';
import type { ImageShape } from './plane.ts';
import type { Stages } from './stages.ts';

/**
 * DiffBIR's restoration guidance: clean latents move against the gradient of how far the image that they decode to is from the first
 * stage's, by 3000 times the scale.
 */
export class Guide {
  private readonly stages: Stages;
  private readonly key: string;
  private readonly trace: () => Record<string, Tensor>;
  private readonly feeds: Readonly<Record<string, Float32Array>>;
  private readonly start: number;
  private readonly stop: number;

  private constructor(
    stages: Stages,
    key: string,
    trace: () => Record<string, Tensor>,
    feeds: Readonly<Record<string, Float32Array>>,
    { guideStart = 1001, guideStop = -1 }: Settings,
  ) {
    this.stages = stages;
    this.key = key;
    this.trace = trace;
    this.feeds = feeds;
    this.start = guideStart;
    this.stop = guideStop;
  }

  /**
   * For latents of `latentShape` that decode to images of `shape`, or larger ones of which these are the upper left part. Throws
   * ERR_OUT_OF_MEMORY where the plan is beyond the budget, for this cannot be done in tiles.
   *
   * @param target the first stage's images [N, H, W, 3], about [0, 1]
   */
  static async create(
    stages: Stages,
    model: LatentDiffusion,
    shape: ImageShape,
    latentShape: ImageShape,
    target: Float32Array,
    settings: Settings & RunOptions,
  ): Promise<Guide> {
    const { guideScale = 0, guideLoss: loss = 'w_mse', signal } = settings;
    const [n, height, width] = shape;
    const trace = (): Record<string, Tensor> => {
      const z = input('clean', latentShape);
      const image = slice(model.decode(z, { recompute: true }), [0, 0, 0, 0], shape);
      const weights = loss === 'w_mse' ? input('weights', [n, height, width, 1]) : undefined;
      const [slope] = grad(guideLoss(image, input('target', shape), weights), [z]);
      return { y: sub(z, mul(input('scale', [1]), slope)) };
    };
    const key = `guide ${loss} ${shape.join('x')}`;
    if (!stages.fits(key, trace)) {
      const room = `more than the ${(stages.budget / 1e9).toFixed(1)} GB that there are for ${width} x ${height} pixels`;
      const how = 'give it more (memory), or leave guideScale out';
      throw new ReflError('ERR_OUT_OF_MEMORY', `restoration guidance through the decoder needs ${room}: ${how}`);
    }
    const scale = Float32Array.of(guideScale * guideUnit);
    if (loss === 'mse') return new Guide(stages, key, trace, { target, scale }, settings);
    const measure = () => ({ y: flatness(input('target', shape)) });
    const { y } = await stages.run(`flatness ${shape.join('x')}`, measure, { target }, { signal });
    return new Guide(stages, key, trace, { target, scale, weights: y as Float32Array }, settings);
  }

  /** The clean latents of a step after the pull, or as they are outside of the range of timesteps. */
  async pull(clean: Float32Array, { timestep }: Step, options: RunOptions): Promise<Float32Array> {
    if (!(this.stop < timestep && timestep < this.start)) return clean;
    return (await this.stages.run(this.key, this.trace, { ...this.feeds, clean }, options)).y as Float32Array;
  }
}
