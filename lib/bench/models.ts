import { alphasCumprod } from '../diffusion/schedule.ts';
import type { TypedArray } from '../graph/dtype.ts';
import { affine, sub } from '../graph/ops/elementwise.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import { sd21 as config } from '../models/latent.ts';
import { UNet } from '../models/unet.ts';
import { AutoencoderKL, posterior } from '../models/vae.ts';
import { initialize } from '../nn/init.ts';
import { CropModel } from '../restore/model.ts';
import type { Program } from '../runtime/index.ts';
import { type ModelBench, timed } from './model_bench.ts';
import { restorerBenches } from './restorers.ts';
import { fill } from './timing.ts';
import { towerBenches } from './towers.ts';
import { workOf } from './work.ts';

/** The model that ships, on one face of its own size. */
const face256: ModelBench = {
  name: 'face-256',
  describe: 'the model that ships, on one aligned face',
  async run(device, options) {
    const model = await CropModel.load(device, 'face-256');
    try {
      const { size } = model;
      const data = new Uint8Array(size * size * 3).map((_, i) => (i * 7919) >>> 3);
      const face = { width: size, height: size, data };
      const restore = () => model.restore([face], { batch: 1, seed: 0, signal: options.signal });
      const { seconds, loopDelay } = await timed({ 'face-256': restore }, options);
      return { times: [{ name: 'face-256', seconds: seconds['face-256'] }], loopDelay };
    } finally {
      model.dispose();
    }
  },
};

/** Prediction of the UNet at a timestep, for 64 x 64 latents and 77 text tokens. */
export function sd21Noise(unet: UNet, latent: Tensor, timestep: number): Tensor {
  const context = input('context', [1, 77, config.unet.context_dim]);
  return unet.forward(latent, constant(Int32Array.of(timestep), [1], 'i32'), context);
}

export const latentShape = [1, 64, 64, 4];

/** Text features as the UNet takes them; what they say has no part in how fast it runs. */
export const sd21Context = (): Float32Array => fill(new Float32Array(77 * config.unet.context_dim), 3);

/**
 * Stable Diffusion 2.1 with random weights, used as OSEDiff does: a 512 x 512 picture is encoded, its noise predicted
 * in one step, and the clean latent decoded. All weights and all three programs are in memory at once.
 */
const sd21: ModelBench = {
  name: 'sd21',
  describe: 'Stable Diffusion 2.1 with random weights restores 512 x 512 pixels in one step',
  async run(device, options) {
    const scale = 0.18215;
    const timestep = 999;
    const alpha = alphasCumprod()[timestep];
    const unet = new UNet(config.unet).train(false);
    const vae = new AutoencoderKL(config.vae).train(false);
    using parameters = device.parameters();
    await initialize(device, parameters, unet, 1n);
    await initialize(device, parameters, vae, 2n);

    const latent = input('latent', latentShape);
    const noise = affine(sd21Noise(unet, latent, timestep), Math.sqrt(1 - alpha));
    const [picture, context] = [fill(new Float32Array(512 * 512 * 3), 0), sd21Context()];
    let carried: TypedArray = new Float32Array();
    const parts = [
      {
        name: 'vae encode 512',
        y: affine(posterior(vae.encode(input('picture', [1, 512, 512, 3]))).mean, scale),
        feeds: () => ({ picture }),
      },
      {
        name: 'unet 64',
        y: affine(sub(latent, noise), 1 / Math.sqrt(alpha) / scale),
        feeds: () => ({ latent: carried, context }),
      },
      { name: 'vae decode 512', y: vae.decode(latent), feeds: () => ({ latent: carried }) },
    ];
    const programs: Program[] = [];
    try {
      const steps: Record<string, () => Promise<void>> = {};
      for (const { name, y, feeds } of parts) {
        const program = await device.compile({ outputs: { y } }, { parameters });
        programs.push(program);
        steps[name] = async () => {
          carried = (await program.run(feeds(), { signal: options.signal })).y;
        };
      }
      const { seconds, loopDelay } = await timed(steps, options);
      const times = parts.map(({ name, y }) => ({ name, seconds: seconds[name], flops: workOf([y]).flops }));
      return { times, loopDelay };
    } finally {
      for (const program of programs) program.dispose();
    }
  },
};

export const modelBenches: readonly ModelBench[] = [face256, sd21, ...restorerBenches, ...towerBenches];
