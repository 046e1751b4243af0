import { rowSum } from '../../diffusion/denoise.ts';
import { alphasCumprod } from '../../diffusion/schedule.ts';
import { cleanWeights, type Step } from '../../diffusion/steps.ts';
import type { DType } from '../../graph/dtype.ts';
import { add, affine, cast, mul } from '../../graph/ops/elementwise.ts';
import { input, type Shape, type Tensor } from '../../graph/tensor.ts';
import type { ForwardOptions } from '../../models/blocks.ts';
import type { ControlNet } from '../../models/controlnet.ts';
import type { Condition, ControlLDM } from '../../models/diffbir.ts';
import { OSEDiff } from '../../models/osediff.ts';
import { concatenated } from '../../numbers.ts';
import type { Values } from '../../runtime/index.ts';

/** Images that a restorer made in the graph, and what of it should not drift from a frozen copy. */
export interface Restored {
  /** [N, H, W, 3], about [0, 1]. */
  readonly images: Tensor;
  /** Features and the frozen copy's. */
  readonly drift: readonly (readonly [own: Tensor, frozen: Tensor])[];
}

/** How the last steps of a sampler are traced. */
export interface LastSteps {
  /** Of the latents: [N, h, w, channels]. */
  readonly shape: Shape;
  /** How many steps have gradients: 1 in DiffusionReward. */
  readonly count: number;
  /** Of the states; float32 by default. */
  readonly dtype?: DType;
}

/** What networks compute in: states, images and losses stay as wide as they are. */
export interface Precision {
  readonly compute?: DType;
}

/** x in the networks' dtype, if they have one of their own. */
export const narrowed = (x: Tensor, { compute }: Precision): Tensor => (compute ? cast(x, compute) : x);

/**
 * The last denoising steps in the graph: from the state `x` that the steps before led to, through `count` steps without
 * history (DDIM, DDPM), to the clean latent that the last one speaks of. What changes from run to run (levels, noise) is fed.
 *
 * @param predict what the network predicts of the state at i32 [N] timesteps
 */
export function lastSteps(
  { shape, count, dtype }: LastSteps,
  predict: (x: Tensor, timesteps: Tensor, last: boolean) => Tensor,
): Tensor {
  const [n] = shape;
  let x = input('x', shape, dtype);
  for (let i = 0; ; i++) {
    const last = i === count - 1;
    const output = predict(x, input(`timesteps.${i}`, [n], 'i32'), last);
    const clean = rowSum(input(`clean.${i}`, [n, 2], dtype), [x, output]);
    if (last) return clean;
    x = rowSum(input(`next.${i}`, [n, 3], dtype), [x, clean, input(`noise.${i}`, shape, dtype)]);
  }
}

/** Where an image of a batch enters {@link lastSteps}. */
export interface Entry {
  readonly x: Float32Array;
  /** As many as are traced. */
  readonly steps: readonly Step[];
  /** Noise for each of them but the last. */
  readonly noise: readonly Float32Array[];
}

/** What {@link lastSteps} is fed, in float32. */
export function lastStepsFeeds(batch: readonly Entry[]): Values {
  const feeds: Record<string, Float32Array | Int32Array> = { x: concatenated(batch.map(({ x }) => x)) };
  const count = batch[0].steps.length;
  for (let i = 0; i < count; i++) {
    feeds[`timesteps.${i}`] = Int32Array.from(batch, ({ steps }) => steps[i].timestep);
    feeds[`clean.${i}`] = concatenated(batch.map(({ steps }) => steps[i].clean));
    if (i === count - 1) break;
    feeds[`next.${i}`] = concatenated(batch.map(({ steps }) => steps[i].next.slice(0, 3)));
    feeds[`noise.${i}`] = concatenated(batch.map(({ noise }) => noise[i]));
  }
  return feeds;
}

/** What a restorer of DiffBIR's form is told beside the latents. */
export interface ControlledSteps extends LastSteps, Condition, Precision {
  /** The ControlNet as it was when training began. */
  readonly frozen?: ControlNet;
  readonly options?: ForwardOptions;
}

/** DiffBIR's last steps, decoded; what must not drift are the control features of the last one. */
export function restoredByControlLDM(
  model: ControlLDM,
  { hint, context, frozen, options, compute, ...steps }: ControlledSteps,
): Restored {
  const drift: [Tensor, Tensor][] = [];
  const [condition, text] = [hint, context].map((x) => narrowed(x, { compute }));
  const clean = lastSteps(steps, (state, timesteps, last) => {
    const x = narrowed(state, { compute });
    const control = model.controlnet.forward(x, condition, timesteps, text, options);
    if (last && frozen) {
      const before = frozen.forward(x, condition, timesteps, text, options);
      drift.push(...control.map((feature, i): [Tensor, Tensor] => [feature, before[i]]));
    }
    return cast(model.unet.forward(x, timesteps, text, { control, ...options }), state.dtype);
  });
  return { images: cast(model.decode(narrowed(clean, { compute }), options), clean.dtype), drift };
}

export interface OneStep extends Precision {
  /** Degraded images [N, H, W, 3] in [0, 1]. */
  readonly degraded: Tensor;
  /** Text features [N, L, context_dim]. */
  readonly context: Tensor;
  /** Noise for the encoder's distribution, of the latents' shape. */
  readonly noise: Tensor;
  /** OSEDiff as it was when training began. */
  readonly frozen?: OSEDiff;
  readonly options?: ForwardOptions;
}

/** OSEDiff's single step, decoded; what must not drift is the UNet's prediction. */
export function restoredByOSEDiff(
  model: OSEDiff,
  { degraded, context, noise, frozen, options, compute }: OneStep,
): Restored {
  const wide = (x: Tensor): Tensor => cast(x, degraded.dtype);
  const [image, text] = [degraded, context].map((x) => narrowed(x, { compute }));
  const step = (osediff: OSEDiff): { z: Tensor; output: Tensor } => {
    const { mean, std } = osediff.encode(image, options);
    const z = add(wide(mean), mul(wide(std), noise));
    return { z, output: wide(osediff.predict(narrowed(z, { compute }), text, options)) };
  };
  const { z, output } = step(model);
  const [ofState, ofOutput] = cleanWeights(alphasCumprod()[OSEDiff.timestep], 'eps');
  const clean = add(affine(z, ofState), affine(output, ofOutput));
  const images = wide(model.decode(narrowed(clean, { compute }), options));
  return { images, drift: frozen ? [[output, step(frozen).output]] : [] };
}
