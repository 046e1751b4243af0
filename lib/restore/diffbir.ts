import { guided } from '../diffusion/denoise.ts';
import { rescaledGuidance, samplerSteps } from '../diffusion/samplers.ts';
import { alphasCumprod, zeroTerminalSnr } from '../diffusion/schedule.ts';
import type { Prediction, Step } from '../diffusion/steps.ts';
import { broadcastTo, slice } from '../graph/ops/layout.ts';
import { input, type Shape, type Tensor } from '../graph/tensor.ts';
import { ControlLDM, type DiffBIRConfig, diffbir } from '../models/diffbir.ts';
import { SwinIR } from '../models/swinir.ts';
import type { RunOptions } from '../runtime/index.ts';
import type { WeightsFile } from '../weights/format.ts';
import { loadWeights } from '../weights/load.ts';
import { waveletColorFix, waveletReach } from './color_fix.ts';
import { Guide } from './guide.ts';
import type { ImageOptions, Setting, Settings } from './image_model.ts';
import { type Batch, LatentModel, type LatentModelOptions, padToMultiple, unitOf } from './latent.ts';
import { type LatentFiles, loadLatent } from './latent_files.ts';
import type { ImageShape } from './plane.ts';

/** What tells the versions of DiffBIR apart, besides their weights. */
export interface DiffBIRVersion {
  readonly prediction: Prediction;
  /** Whether the noise schedule ends without signal. */
  readonly zeroTerminalSnr: boolean;
  readonly defaults: Required<Pick<Settings, 'guidance' | 'rescale' | 'negativePrompt'>>;
}

/** Files of DiffBIR's networks. */
export interface DiffBIRFiles extends LatentFiles {
  readonly controlnet: WeightsFile;
  readonly stage1: WeightsFile;
}

const negativePrompt = 'low quality, blurry, low-resolution, noisy, unsharp, weird textures';

/**
 * The published versions. Version 1 is used without guidance, as its authors first did and DiffusionReward does; 2 and 2.1 with
 * the scales of their authors' examples.
 */
export const diffbirVersions = {
  v1: { prediction: 'eps', zeroTerminalSnr: false, defaults: { guidance: 1, rescale: false, negativePrompt } },
  v2: { prediction: 'eps', zeroTerminalSnr: false, defaults: { guidance: 4, rescale: false, negativePrompt } },
  'v2.1': { prediction: 'v', zeroTerminalSnr: true, defaults: { guidance: 8, rescale: false, negativePrompt } },
} as const satisfies Record<string, DiffBIRVersion>;

/**
 * DiffBIR: SwinIR removes the damage, and Stable Diffusion, steered by the latent of what SwinIR made, adds detail in a number of
 * denoising steps. Colours are then mended by the wavelet transform.
 */
export class DiffBIRModel extends LatentModel {
  protected readonly taken: readonly Setting[] = [
    'prompt',
    'negativePrompt',
    'steps',
    'sampler',
    'guidance',
    'rescale',
    'strength',
    'start',
    'fidelity',
    'guideScale',
    'guideLoss',
    'guideStart',
    'guideStop',
  ];
  readonly #version: DiffBIRVersion;
  readonly #alphas: Float64Array;
  readonly #stage1: SwinIR;
  readonly #model: ControlLDM;

  /** Of networks whose parameters are in the stages. */
  constructor(options: LatentModelOptions, version: DiffBIRVersion, stage1: SwinIR, model: ControlLDM) {
    super(options, model);
    this.#version = version;
    this.#alphas = version.zeroTerminalSnr ? zeroTerminalSnr(alphasCumprod()) : alphasCumprod();
    this.#stage1 = stage1;
    this.#model = model;
  }

  /** Loads the networks of a version from their files. Throws ERR_WEIGHTS for a file that does not fit. */
  static async load(
    { stages, ...options }: LatentModelOptions,
    version: DiffBIRVersion,
    files: DiffBIRFiles,
    config: DiffBIRConfig = diffbir,
  ): Promise<DiffBIRModel> {
    const [stage1, model] = [new SwinIR(config.stage1), new ControlLDM(config)];
    await loadLatent(stages, model, files);
    await loadWeights(stages.parameters, model.controlnet, files.controlnet, { frozen: true });
    await loadWeights(stages.parameters, stage1, files.stage1, { frozen: true });
    return new DiffBIRModel({ stages, ...options }, version, stage1, model);
  }

  override check(settings: Settings): void {
    super.check(settings);
    const { defaults } = this.#version;
    const { guidance = defaults.guidance, negativePrompt = defaults.negativePrompt } = settings;
    if (guidance !== 1) this.prompts.check(negativePrompt);
    this.#steps(settings);
  }

  #steps({ sampler = 'spaced', steps = 50 }: Settings): Step[] {
    return samplerSteps(sampler, { alphas: this.#alphas, prediction: this.#version.prediction, steps });
  }

  protected async restoreBatch(batch: Batch, options: ImageOptions): Promise<Uint8Array> {
    const { defaults } = this.#version;
    const { signal, seed, fidelity = 0, start = 'noise', guidance = defaults.guidance } = options;
    const steps = this.#steps(options);
    const total = steps.length + 3;
    let done = 0;
    const onProgress = (fraction: number): void => options.onProgress?.((done + fraction) / total);
    const running = { signal, onProgress };
    const advance = (): void => options.onProgress?.(++done / total);

    const shape = this.latentShape(batch);
    const clean = await this.#clean(batch, running);
    advance();
    const { mean: hint } = await this.encode(clean, batch, 'zero', running);
    const context = await this.prompts.features(batch.prompts, { signal });
    const opposite = batch.prompts.map(() => options.negativePrompt ?? defaults.negativePrompt);
    const negative = guidance === 1 ? undefined : await this.prompts.features(opposite, { signal });
    advance();

    const guide = options.guideScale
      ? await Guide.create(this.stages, this.#model, batch.shape, shape, clean, options)
      : undefined;
    const noise = await this.noise(shape, seed, 0);
    const conditions = { hint, context, negative };
    const latents = await this.sample(shape, seed, {
      steps,
      start: start === 'noise' ? noise : await this.#underNoise(hint, noise, shape, { signal }),
      predict: (x, step) => this.#predict(x, conditions, shape, step, { ...options, guidance, onProgress }),
      correct: async (estimate, step) => {
        const pulled = guide ? await guide.pull(estimate, step, { signal }) : estimate;
        // Restoration guidance among latents: a step along the gradient of their mean square distance is a blend.
        return fidelity ? this.mixed(pulled, hint, [1 - fidelity, fidelity], shape, { signal }) : pulled;
      },
      onStep: advance,
    });
    const mending = { style: clean, mend: waveletColorFix, reach: waveletReach };
    const pixels = await this.finish(latents, batch, mending, running);
    advance();
    return pixels;
  }

  /** The first stage: images [N, H, W, 3], about [0, 1], without damage and without detail. */
  #clean({ shape, bytes }: Batch, options: RunOptions): Promise<Float32Array> {
    const { multiple } = this.#stage1;
    const trace = (seen: ImageShape) => {
      const padded = padToMultiple(unitOf(input('bytes', seen, 'u8')), multiple, 'zero');
      return { y: slice(this.#stage1.forward(padded), [0, 0, 0, 0], seen) };
    };
    const view = { window: this.size, stride: this.size / 2, multiple };
    return this.through('stage1', shape, view, trace, { bytes }, {}, options);
  }

  /** The condition as it looks at the noisy end of the schedule. */
  #underNoise(hint: Float32Array, noise: Float32Array, shape: Shape, options: RunOptions): Promise<Float32Array> {
    const alpha = this.#alphas[this.#alphas.length - 1];
    return this.mixed(hint, noise, [Math.sqrt(alpha), Math.sqrt(1 - alpha)], shape, options);
  }

  /** What the network predicts, with guidance where there is a negative prompt. */
  #predict(
    x: Float32Array,
    { hint, context, negative }: { hint: Float32Array; context: Float32Array; negative?: Float32Array },
    shape: ImageShape,
    { timestep }: Step,
    { guidance, rescale = this.#version.defaults.rescale, strength = 1, signal, onProgress }: Predicting,
  ): Promise<Float32Array> {
    const trace = (seen: ImageShape) => {
      const [state, condition] = [input('x', seen), input('hint', seen)];
      const timesteps = broadcastTo(input('timestep', [1]), [seen[0]]);
      const predict = (name: string): Tensor => {
        const text = input(name, [seen[0], ...this.#model.textShape]);
        return this.#model.predict(state, timesteps, { context: text, hint: condition }, { strength });
      };
      const y = predict('context');
      return { y: negative ? guided(y, predict('negative'), input('scale', [1])) : y };
    };
    const scale = rescale ? rescaledGuidance(guidance, timestep) : guidance;
    const others = {
      context,
      timestep: Float32Array.of(timestep),
      ...(negative && { negative, scale: Float32Array.of(scale) }),
    };
    const key = `predict ${strength}${negative ? ' guided' : ''}`;
    const window = this.size / this.#model.factor;
    const view = { window, stride: window / 2, multiple: this.#model.unet.multiple, most: 4 * window ** 2 };
    return this.through(key, shape, view, trace, { x, hint }, others, { signal, onProgress });
  }
}

type Predicting = Settings & RunOptions & { readonly guidance: number };
