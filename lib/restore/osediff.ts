import { alphasCumprod } from '../diffusion/schedule.ts';
import { cleanWeights, type Step } from '../diffusion/steps.ts';
import { add, mul } from '../graph/ops/elementwise.ts';
import { input, type Shape } from '../graph/tensor.ts';
import type { Adapters } from '../models/adapters.ts';
import { type LatentConfig, sd21 } from '../models/latent.ts';
import { OSEDiff } from '../models/osediff.ts';
import type { RunOptions } from '../runtime/index.ts';
import { adainColorFix } from './color_fix.ts';
import type { ImageOptions, Setting } from './image_model.ts';
import { type Batch, LatentModel, type LatentModelOptions, padToMultiple, unitOf } from './latent.ts';
import { type LatentFiles, loadAdapted, loadFolded } from './latent_files.ts';

/** The only step: from the last timestep, whose latent is the picture's own, to the clean latent. */
const step: Step = {
  timestep: OSEDiff.timestep,
  clean: cleanWeights(alphasCumprod()[OSEDiff.timestep], 'eps'),
  next: [0, 1, 0, 0, 0],
};

export interface OSEDiffOptions {
  /** Stable Diffusion 2.1 when left out. */
  readonly config?: LatentConfig;
  /** Whether adapters are folded into the weights: faster, for more memory. */
  readonly fold?: boolean;
  /** Whether results take the mean and deviation of the picture's colours; OSEDiff-face leaves them. */
  readonly mendsColours: boolean;
}

/** OSEDiff: one denoising step from the latent of the degraded picture. */
export class OSEDiffModel extends LatentModel {
  protected readonly taken: readonly Setting[] = ['prompt', 'fidelity'];
  readonly #model: OSEDiff;
  readonly #mendsColours: boolean;

  private constructor(options: LatentModelOptions, model: OSEDiff, mendsColours: boolean) {
    super(options, model);
    this.#model = model;
    this.#mendsColours = mendsColours;
  }

  /**
   * Loads the networks, with their adapters beside the weights or folded into them. Throws ERR_WEIGHTS for a file that does not
   * fit.
   */
  static async load(
    { stages, ...options }: LatentModelOptions,
    { config = sd21, fold = false, mendsColours }: OSEDiffOptions,
    files: LatentFiles,
    adapters: Adapters,
  ): Promise<OSEDiffModel> {
    const adapted = new OSEDiff(config, adapters.ranks);
    const model = fold ? new OSEDiff(config) : adapted;
    if (fold) await loadFolded(stages, model, adapted, files, adapters);
    else await loadAdapted(stages, adapted, files, adapters);
    return new OSEDiffModel({ stages, ...options }, model, mendsColours);
  }

  protected async restoreBatch(batch: Batch, options: ImageOptions): Promise<Uint8Array> {
    const { signal, onProgress, seed, fidelity = 0 } = options;
    const shape = this.latentShape(batch);
    const context = await this.prompts.features(batch.prompts, { signal });
    const { image, z } = await this.#encode(batch, await this.noise(shape, seed, 0), { signal });
    onProgress?.(0.3);
    const latents = await this.sample(shape, seed, {
      steps: [step],
      start: z,
      predict: () => this.#predict(z, context, shape, { signal }),
      correct: fidelity ? (clean) => this.mixed(clean, z, [1 - fidelity, fidelity], shape, { signal }) : undefined,
      onStep: () => onProgress?.(0.6),
    });
    const mending = this.#mendsColours ? { style: image, mend: adainColorFix } : undefined;
    const pixels = await this.finish(latents, batch, mending, { signal });
    onProgress?.(1);
    return pixels;
  }

  /** The picture in [0, 1], and a latent drawn from what the encoder makes of it. */
  async #encode(
    { shape, bytes }: Batch,
    noise: Float32Array,
    options: RunOptions,
  ): Promise<{ image: Float32Array; z: Float32Array }> {
    const trace = () => {
      const image = unitOf(input('bytes', shape, 'u8'));
      const { mean, std } = this.#model.encode(padToMultiple(image, this.multiple, 'replicate'));
      return { image, z: add(mean, mul(std, input('noise', mean.shape))) };
    };
    const encoded = await this.stages.run(`encode ${shape.join('x')}`, trace, { bytes, noise }, options);
    return encoded as { image: Float32Array; z: Float32Array };
  }

  async #predict(z: Float32Array, context: Float32Array, shape: Shape, options: RunOptions): Promise<Float32Array> {
    const trace = () => ({
      y: this.#model.predict(input('z', shape), input('context', [shape[0], ...this.#model.textShape])),
    });
    return (await this.stages.run(`predict ${shape.join('x')}`, trace, { z, context }, options)).y as Float32Array;
  }
}
