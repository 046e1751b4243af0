import { alphasCumprod } from '../diffusion/schedule.ts';
import { cleanWeights, type Step } from '../diffusion/steps.ts';
import type { TypedArray } from '../graph/dtype.ts';
import { add, mul } from '../graph/ops/elementwise.ts';
import { input, type Shape, type Tensor } from '../graph/tensor.ts';
import type { Adapters } from '../models/adapters.ts';
import { type LatentConfig, sd21 } from '../models/latent.ts';
import { OSEDiff } from '../models/osediff.ts';
import type { RunOptions } from '../runtime/index.ts';
import { adainColorFix } from './color_fix.ts';
import type { ImageOptions, Setting } from './image_model.ts';
import { type Batch, LatentModel, type LatentModelOptions, unitOf } from './latent.ts';
import { type LatentFiles, loadAdapted, loadFolded } from './latent_files.ts';
import { runPaired } from './pieces.ts';
import { type ImageShape, planeOf, type Region, writeRegion } from './plane.ts';

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

  /** Of networks whose parameters are in the stages. */
  constructor(options: LatentModelOptions, model: OSEDiff, mendsColours: boolean) {
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
    let done = 0;
    const parts = 3;
    const running = { signal, onProgress: (fraction: number) => onProgress?.((done + fraction) / parts) };
    const image = await this.#unit(batch, { signal });
    const { mean, std } = await this.encode(image, batch, 'replicate', running);
    done++;
    const z = await this.#drawn(mean, std, await this.noise(shape, seed, 0), shape, { signal });
    const latents = await this.sample(shape, seed, {
      steps: [step],
      start: z,
      predict: () => this.#predict(z, context, shape, running),
      correct: fidelity ? (clean) => this.mixed(clean, z, [1 - fidelity, fidelity], shape, { signal }) : undefined,
    });
    done++;
    const [, height, width] = batch.shape;
    const mend = (restored: Tensor, style: Tensor): Tensor => adainColorFix(restored, style, height * width);
    const mending = this.#mendsColours ? { style: image, mend, reach: 0 } : undefined;
    return this.finish(latents, batch, mending, running);
  }

  /** The pictures in [0, 1]. */
  async #unit({ shape, bytes }: Batch, options: RunOptions): Promise<Float32Array> {
    const image = new Float32Array(bytes.length);
    const piece = { forward: unitOf, reach: 0, scale: 1 };
    const write = (tile: Region, part: TypedArray): void => writeRegion(image, shape, tile, part as Float32Array);
    await runPaired(this.stages, 'unit', piece, [planeOf(bytes, shape)], (y) => y, write, options);
    return image;
  }

  /** A latent out of the distribution that the encoder gave. */
  async #drawn(
    mean: Float32Array,
    std: Float32Array,
    noise: Float32Array,
    shape: Shape,
    options: RunOptions,
  ): Promise<Float32Array> {
    const trace = () => ({ z: add(input('mean', shape), mul(input('std', shape), input('noise', shape))) });
    return (await this.stages.run(`draw ${shape.join('x')}`, trace, { mean, std, noise }, options)).z as Float32Array;
  }

  #predict(z: Float32Array, context: Float32Array, shape: ImageShape, options: RunOptions): Promise<Float32Array> {
    const trace = (seen: ImageShape) => ({
      y: this.#model.predict(input('z', seen), input('context', [seen[0], ...this.#model.textShape])),
    });
    // OSEDiff's own: 96 positions with 32 in common, where it was trained on 64.
    const trained = this.size / this.#model.factor;
    const window = 1.5 * trained;
    const view = { window, stride: trained, multiple: this.#model.unet.multiple, most: window ** 2 };
    return this.through('predict', shape, view, trace, { z }, { context }, options);
  }
}
