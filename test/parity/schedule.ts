import { addNoise, distributionMatching, guided, predictClean, velocity } from '../../lib/diffusion/denoise.ts';
import { rescaledGuidance, type SamplerName, samplerSteps } from '../../lib/diffusion/samplers.ts';
import { Sampling } from '../../lib/diffusion/sampling.ts';
import { alphasCumprod, evenTimesteps, leadingTimesteps, zeroTerminalSnr } from '../../lib/diffusion/schedule.ts';
import { clean, ddimSteps, levelsOf, type Prediction, posterior } from '../../lib/diffusion/steps.ts';
import type { TypedArray } from '../../lib/graph/dtype.ts';
import { add, affine, tanh } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { mean } from '../../lib/graph/ops/reduce.ts';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { type Report, relativeError } from './report.ts';

/** Of ../shared/golden/README.md. */
const limits = { f64: 1e-12, f32: 1e-6, trajectory: 5e-5, op: 1e-5 } as const;

const schedules = { eps: alphasCumprod(), v_zero_snr: zeroTerminalSnr(alphasCumprod()) };
type ScheduleName = keyof typeof schedules;

interface Trajectory {
  sampler: 'DDIMSampler' | 'SpacedSampler';
  parameterization: Prediction;
  schedule: ScheduleName;
  steps: number;
  cfg_scale: number;
  rescale_cfg: boolean;
  eta?: number;
}

interface Config {
  toy: { a: number; b: number; c: number };
  trajectories: Record<string, Trajectory>;
  cfg_vsd: number;
}

export const samplerNames: Record<Trajectory['sampler'], SamplerName> = {
  DDIMSampler: 'ddim',
  SpacedSampler: 'spaced',
};

export async function compareSchedule(device: Device, golden: Golden, report: Report): Promise<void> {
  const values: Record<string, ArrayLike<number>> = { ...tables(golden) };
  const { trajectories, toy, cfg_vsd } = golden.json<Config>('config');
  for (const [name, value] of Object.entries(await latents(device, golden, cfg_vsd))) {
    values[name] = value as ArrayLike<number>;
  }
  for (const [name, trajectory] of Object.entries(trajectories)) {
    values[`out.traj.${name}.x`] = await walk(device, golden, name, trajectory, toy);
  }
  for (const key of [...golden.keys('out.').map((k) => `out.${k}`), ...golden.keys('grad.').map((k) => `grad.${k}`)]) {
    const limit = golden.file.entries.get(key)!.dtype === 'F64' ? limits.f64 : limitOf(key);
    if (values[key]) report.add(`${golden.name} ${key}`, finiteError(values[key], await golden.read(key)), limit);
    else report.fail(`${golden.name} ${key}`, 'there is no such output here');
  }
}

function limitOf(key: string): number {
  if (key.startsWith('out.traj.')) return limits.trajectory;
  return /^out\.(eps|v_zero_snr|spaced|ddim|onestep\.diffusers)/.test(key) ? limits.f32 : limits.op;
}

/** The relative error, where entries that are infinite must be so on both sides. */
function finiteError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  if (a.length !== b.length) return Number.NaN;
  const same = Array.from(a, (v, i) => v === b[i]);
  const pick = (x: ArrayLike<number>): number[] =>
    Array.from(x).map((v, i) => (same[i] && !Number.isFinite(v) ? 0 : v));
  return relativeError(pick(a), pick(b));
}

/** The tables of every schedule in the file, by key. */
function tables(golden: Golden): Record<string, ArrayLike<number>> {
  const values: Record<string, ArrayLike<number>> = { 'out.onestep.diffusers_alphas_cumprod': schedules.eps };
  for (const [name, alphas] of Object.entries(schedules)) {
    values[`out.${name}.alphas_cumprod_f64`] = alphas;
    values[`out.${name}.betas_f64`] = alphas.map((a, t) => 1 - a / (t ? alphas[t - 1] : 1));
    values[`out.${name}.sqrt_alphas_cumprod`] = alphas.map(Math.sqrt);
    values[`out.${name}.sqrt_one_minus_alphas_cumprod`] = alphas.map((a) => Math.sqrt(1 - a));
  }
  const variants = golden.keys('out.').map((key) => /^(spaced|ddim)(\d+)\.(\w+)\.timesteps$/.exec(key));
  for (const [, kind, count, schedule] of variants.filter((match) => match !== null)) {
    const alphas = schedules[schedule as ScheduleName];
    const table = kind === 'spaced' ? spacedTable(alphas, Number(count)) : ddimTable(alphas, Number(count));
    for (const [key, value] of Object.entries(table)) values[`out.${kind}${count}.${schedule}.${key}`] = value;
  }
  return values;
}

function spacedTable(alphas: Float64Array, count: number): Record<string, number[]> {
  const timesteps = evenTimesteps(count);
  const levels = [clean, ...levelsOf(alphas, timesteps)].map(({ alpha }) => alpha);
  const reached = levels.slice(1);
  const posteriors = reached.map((alpha, i) => posterior(alpha, levels[i]));
  return {
    timesteps,
    sqrt_alphas_cumprod: reached.map(Math.sqrt),
    sqrt_one_minus_alphas_cumprod: reached.map((a) => Math.sqrt(1 - a)),
    sqrt_recip_alphas_cumprod: reached.map((a) => Math.sqrt(1 / a)),
    sqrt_recipm1_alphas_cumprod: reached.map((a) => Math.sqrt(1 / a - 1)),
    posterior_variance: posteriors.map(({ variance }) => variance),
    posterior_log_variance_clipped: posteriors.map((_, i) => Math.log(posteriors[Math.max(i, 1)].variance)),
    posterior_mean_coef1: posteriors.map((p) => p.clean),
    posterior_mean_coef2: posteriors.map((p) => p.state),
  };
}

function ddimTable(alphas: Float64Array, count: number): Record<string, number[]> {
  const timesteps = leadingTimesteps(count);
  const reached = timesteps.map((t) => alphas[t]);
  const before = [alphas[0], ...reached.slice(0, -1)];
  return {
    timesteps,
    ddim_sigmas: ddimSteps(levelsOf(alphas, [0, ...timesteps].reverse()), 'v').map(({ next }) => next[2]),
    ddim_alphas: reached,
    ddim_sqrt_alphas: reached.map(Math.sqrt),
    ddim_alphas_prev: before,
    ddim_sqrt_one_minus_alphas: reached.map((a) => Math.sqrt(1 - a)),
  };
}

/** Noising, the one-step estimate and the distribution matching loss. */
async function latents(device: Device, golden: Golden, cfg: number): Promise<Record<string, TypedArray>> {
  const made = new Map<string, Tensor>();
  const feed = (key: string): Tensor => {
    if (!made.has(key)) made.set(key, golden.feed(`in.${key}`));
    return made.get(key)!;
  };
  const noised = (part: string): [Tensor, Tensor, Tensor, Float64Array] => {
    const x = part === 'q' ? 'x0' : 'latents';
    return [feed(`${part}.${x}`), feed(`${part}.noise`), feed(`${part}.t`), schedules.eps];
  };
  const vsd = noised('vsd');
  const noisy = addNoise(...vsd);
  const cleanOf = (output: Tensor): Tensor => predictClean(noisy, output, vsd[2], schedules.eps, 'eps');
  const fixed = cleanOf(guided(feed('vsd.eps_fix_text'), feed('vsd.eps_fix_uncond'), cfg));
  const update = cleanOf(feed('vsd.eps_update'));
  const { loss, gradient } = distributionMatching(vsd[0], update, fixed);
  const [latent, eps] = [feed('onestep.latent'), feed('onestep.eps')];
  const last = input('last', [latent.shape[0]], 'i32');
  const onestep = predictClean(latent, eps, last, schedules.eps, 'eps');
  const outputs: Record<string, Tensor> = {
    'out.q.x_t': addNoise(...noised('q')),
    'out.q.v': velocity(...noised('q')),
    'out.onestep.x0': onestep,
    'out.onestep.scheduler_step': onestep,
    'out.vsd.noisy': noisy,
    'out.vsd.x0_update': update,
    'out.vsd.x0_fix': fixed,
    'out.vsd.loss': loss,
    'grad.vsd.latents': gradient,
  };
  if (golden.has('in.add_noise.t')) {
    outputs['out.add_noise.x_t'] = addNoise(latent, eps, feed('add_noise.t'), schedules.eps);
  }
  return evaluate(device, outputs, {
    ...(await golden.values([...made.keys()].map((key) => `in.${key}`))),
    last: new Int32Array(latent.shape[0]).fill(999),
  });
}

/** The states after every step of a trajectory of the file, with its toy network for the real one. */
async function walk(
  device: Device,
  golden: Golden,
  name: string,
  { sampler, schedule, parameterization, steps, cfg_scale, rescale_cfg, eta }: Trajectory,
  toy: Config['toy'],
): Promise<Float32Array> {
  const alphas = schedules[schedule];
  const [x, image] = [input('x', golden.shape('in.traj.x_T')), golden.feed('in.traj.c_img')];
  const [time, scale] = [input('time', [1]), input('scale', [1])];
  const network = (prompt: string): Tensor => {
    const text = reshape(mean(golden.feed(`in.traj.${prompt}`), [1, 2]), [x.shape[0], 1, 1, 1]);
    return tanh(add(add(affine(x, toy.a), affine(time, toy.b / 1000)), add(text, affine(image, toy.c))));
  };
  const y = cfg_scale === 1 ? network('c_txt') : guided(network('c_txt'), network('uncond_c_txt'), scale);
  using program = await device.compile({ outputs: { y } });
  using sampling = await Sampling.create(device, x.shape);
  const known = new Set(['c_img', 'c_txt', ...(cfg_scale === 1 ? [] : ['uncond_c_txt'])]);
  const feeds = await golden.values([...known].map((key) => `in.traj.${key}`));
  const noise = golden.has(`in.traj.${name}.noise`) ? await golden.read(`in.traj.${name}.noise`) : undefined;
  const states: number[] = [];
  await sampling.run({
    steps: samplerSteps(samplerNames[sampler], { alphas, prediction: parameterization, steps, eta }),
    start: (await golden.read('in.traj.x_T')) as Float32Array,
    predict: async (state, { timestep }) => {
      const guidance = rescale_cfg ? rescaledGuidance(cfg_scale, timestep) : cfg_scale;
      const at = {
        x: state,
        time: Float32Array.of(timestep),
        ...(cfg_scale === 1 ? {} : { scale: Float32Array.of(guidance) }),
      };
      return (await program.run({ ...feeds, ...at })).y as Float32Array;
    },
    noise: async (i) => noise!.subarray(i * x.size, (i + 1) * x.size) as Float32Array,
    onStep: (_, state) => states.push(...state),
  });
  return Float32Array.from(states);
}
