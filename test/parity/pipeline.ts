import { guided } from '../../lib/diffusion/denoise.ts';
import { rescaledGuidance, samplerSteps } from '../../lib/diffusion/samplers.ts';
import { Sampling } from '../../lib/diffusion/sampling.ts';
import { alphasCumprod, zeroTerminalSnr } from '../../lib/diffusion/schedule.ts';
import type { Prediction } from '../../lib/diffusion/steps.ts';
import { affine } from '../../lib/graph/ops/elementwise.ts';
import { broadcastTo } from '../../lib/graph/ops/layout.ts';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import type { CLIPConfig } from '../../lib/models/clip.ts';
import type { ControlNetConfig } from '../../lib/models/controlnet.ts';
import { ControlLDM } from '../../lib/models/diffbir.ts';
import type { UNetConfig } from '../../lib/models/unet.ts';
import type { VaeConfig } from '../../lib/models/vae.ts';
import { type Device, evaluate, type Parameters } from '../../lib/runtime/index.ts';
import { loadWeights } from '../../lib/weights/load.ts';
import type { Golden } from './golden.ts';
import { toNchw, toNhwc } from './module.ts';
import { type Report, relativeError } from './report.ts';
import { samplerNames } from './schedule.ts';

/** Of ../shared/golden/README.md: what comes after sampling may be further off than what goes before. */
const limits = { conditions: 2e-5, sampled: 2e-4 } as const;

interface Run {
  sampler: keyof typeof samplerNames;
  schedule: 'default' | { zero_snr: boolean };
  parameterization: Prediction;
  steps: number;
  cfg_scale: number;
  rescale_cfg: boolean;
  eta?: number;
}

interface Config {
  unet_cfg: UNetConfig;
  controlnet_cfg: ControlNetConfig;
  vae_cfg: VaeConfig;
  clip_cfg: CLIPConfig & { layer: 'last' | 'penultimate' };
  latent_scale_factor: number;
  runs: Record<string, Run>;
}

/** The whole of DiffBIR's second stage: its conditions, every state of every run, and the images that they end in. */
export async function comparePipeline(device: Device, golden: Golden, report: Report): Promise<void> {
  const config = golden.json<Config>('config');
  const model = new ControlLDM({
    unet: config.unet_cfg,
    controlnet: config.controlnet_cfg,
    vae: config.vae_cfg,
    text: config.clip_cfg,
    scale: config.latent_scale_factor,
  });
  using parameters = device.parameters();
  await loadWeights(parameters, model, golden.file, { prefix: 'weights.', frozen: true });
  const values = await conditions(device, golden, model, parameters, config);
  for (const [name, run] of Object.entries(config.runs)) {
    Object.assign(values, await sample(device, golden, model, parameters, values, name, run));
  }
  for (const name of golden.keys('out.')) {
    const label = `${golden.name} out.${name}`;
    const limit = /^(c_img|c_txt|uncond_c_txt)$/.test(name) ? limits.conditions : limits.sampled;
    if (values[name]) report.add(label, relativeError(values[name], await golden.read(`out.${name}`)), limit);
    else report.fail(label, 'there is no such output here');
  }
}

/** What is made once for a picture and its prompts, by name. */
async function conditions(
  device: Device,
  golden: Golden,
  model: ControlLDM,
  parameters: Parameters,
  { clip_cfg }: Config,
): Promise<Record<string, Float32Array>> {
  const [image, tokens, negative] = ['in.image', 'in.tokens', 'in.neg_tokens'].map((key) => golden.feed(key));
  const text = (ids: Tensor): Tensor => (clip_cfg.layer === 'last' ? model.clip.model.tokens(ids) : model.text(ids));
  const outputs = {
    c_img: toNchw(model.encode(toNhwc(image)).mean),
    c_txt: text(tokens),
    uncond_c_txt: text(negative),
  };
  const feeds = await golden.values(['in.image', 'in.tokens', 'in.neg_tokens']);
  return (await evaluate(device, outputs, feeds, parameters)) as Record<string, Float32Array>;
}

async function sample(
  device: Device,
  golden: Golden,
  model: ControlLDM,
  parameters: Parameters,
  conditions: Record<string, Float32Array>,
  name: string,
  { sampler, schedule, parameterization, steps, cfg_scale, rescale_cfg, eta }: Run,
): Promise<Record<string, Float32Array>> {
  const alphas = schedule !== 'default' && schedule.zero_snr ? zeroTerminalSnr(alphasCumprod()) : alphasCumprod();
  const [x, hint] = [golden.feed('in.x_T'), input('hint', golden.shape('out.c_img'))];
  const [time, scale] = [input('time', [1]), input('scale', [1])];
  const steered = cfg_scale !== 1;
  const predict = (prompt: string): Tensor => {
    const shape = golden.shape(`out.${prompt}`);
    const context = broadcastTo(input(prompt, shape), [x.shape[0], ...shape.slice(1)]);
    const timesteps = broadcastTo(time, [x.shape[0]]);
    return toNchw(model.predict(toNhwc(x), timesteps, { context, hint: toNhwc(hint) }));
  };
  const y = steered ? guided(predict('c_txt'), predict('uncond_c_txt'), scale) : predict('c_txt');
  using program = await device.compile({ outputs: { y } }, { parameters });
  using sampling = await Sampling.create(device, x.shape);
  const noise = golden.has(`in.${name}.noise`) ? await golden.read(`in.${name}.noise`) : undefined;
  const { c_img, c_txt, uncond_c_txt } = conditions;
  const given = { hint: c_img, c_txt, ...(steered && { uncond_c_txt }) };
  const states: number[] = [];
  const latent = await sampling.run({
    steps: samplerSteps(samplerNames[sampler], { alphas, prediction: parameterization, steps, eta }),
    start: (await golden.read('in.x_T')) as Float32Array,
    predict: async (state, { timestep }) => {
      const guidance = rescale_cfg ? rescaledGuidance(cfg_scale, timestep) : cfg_scale;
      const at = {
        'in.x_T': state,
        time: Float32Array.of(timestep),
        ...(steered && { scale: Float32Array.of(guidance) }),
      };
      return (await program.run({ ...given, ...at })).y as Float32Array;
    },
    noise: async (i) => noise!.subarray(i * x.size, (i + 1) * x.size) as Float32Array,
    onStep: (_, state) => states.push(...state),
  });
  // The file's images are as the autoencoder gives them, in [-1, 1].
  const image = toNchw(affine(model.decode(toNhwc(x)), 2, -1));
  const decoded = await evaluate(device, { image }, { 'in.x_T': latent }, parameters);
  return { [`${name}.x`]: Float32Array.from(states), [`${name}.image`]: decoded.image as Float32Array };
}
