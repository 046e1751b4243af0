import { join } from 'node:path';
import type { PairSource } from '../data/pairs.ts';
import { type OneStepConfig, OneStepRestorer } from '../diffusion/onestep.ts';
import { ReflError } from '../errors.ts';
import { grad } from '../graph/grad.ts';
import { affine, log, square, sub } from '../graph/ops/elementwise.ts';
import { mean } from '../graph/ops/reduce.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { makeFolder } from '../image/files.ts';
import { initialize } from '../nn/init.ts';
import type { Device } from '../runtime/index.ts';
import { openSafetensors } from '../weights/safetensors.ts';
import { loadCheckpoint, saveCheckpoint } from './checkpoint.ts';
import { Optimizer } from './optimizer.ts';
import { checkpointPath, checkResumable, newestCheckpoint, pruneCheckpoints, runKey } from './resume.ts';

/** The restorer that ships: 64 x 64 latents of 48 channels, three levels, attention at 16 x 16. */
export const baseConfig: OneStepConfig = {
  size: 256,
  factor: 4,
  timestep: 20,
  tokens: 4,
  unet: {
    in_channels: 48,
    out_channels: 48,
    model_channels: 64,
    channel_mult: [1, 2, 2],
    num_res_blocks: 1,
    attention_resolutions: [4],
    num_head_channels: 32,
    context_dim: 64,
    transformer_depth: 1,
  },
};

export interface BaseOptions {
  readonly config: OneStepConfig;
  /** Folder for checkpoints and the finished weights. */
  readonly out: string;
  readonly steps: number;
  readonly batch: number;
  /** Peak learning rate; it warms up over 200 steps and falls to a hundredth along a cosine. */
  readonly lr: number;
  readonly seed: number;
  /** Finished weights to start from, as an earlier run wrote them. Without: drawn anew. */
  readonly init?: string;
  /** Steps between checkpoints; the last two are kept. */
  readonly checkpointEvery: number;
}

export interface BaseStep {
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  /** Norm of all gradients before clipping. */
  readonly norm: number;
  readonly lr: number;
  readonly seconds: number;
}

export interface BaseEvents {
  /** Ends training after the step under way; a checkpoint is written first. */
  readonly signal?: AbortSignal;
  readonly onStart?: (info: { parameters: number; peakBytes: number; from: number }) => void;
  readonly onStep?: (step: BaseStep) => void;
}

/**
 * Minus the mean PSNR of the images, in dB, for values in [0, 1]: what restorers are compared by. An image that is hardly damaged
 * counts as much as one of which little is left. Beyond 50 dB nothing is gained, so the logarithm stays finite.
 */
const negativePsnr = (a: Tensor, b: Tensor): Tensor =>
  affine(mean(log(affine(mean(square(sub(a, b)), [1, 2, 3]), 1, 1e-5))), 10 / Math.LN10);

/**
 * Trains the default restorer on pairs of degraded and clean crops. Everything drawn depends on the seed and the step only,
 * so a run resumed from its newest checkpoint in `out` ends with the same bits as one that never stopped (same
 * machine and thread count; the checkpoint stores the count, and another is refused).
 *
 * @returns the path of the finished weights (averaged, float16), or undefined when `signal` ended training early
 */
export async function trainBase(
  device: Device,
  pairs: PairSource,
  options: BaseOptions,
  { signal, onStart, onStep }: BaseEvents = {},
): Promise<string | undefined> {
  const model = new OneStepRestorer(options.config);
  if (pairs.size % model.multiple) {
    throw new ReflError('ERR_OPTION', `crops must be multiples of ${model.multiple} pixels, got ${pairs.size}`);
  }
  const optimizer = new Optimizer(model, { weightDecay: 0.01, clip: 1 });
  using parameters = device.parameters();
  const weights = new Map([...model.namedParameters()].map(([key, { value }]) => [key, value]));
  const leaves = new Map([...weights, ...optimizer.state()]);

  await makeFolder(options.out);
  const key = runKey(decisive(options, pairs), device);
  const newest = await newestCheckpoint(options.out);
  let from = 0;
  if (newest) {
    const { metadata } = await openSafetensors(newest);
    checkResumable(newest, metadata, key);
    await loadCheckpoint(newest, parameters, leaves);
    from = Number(metadata.step);
  } else {
    if (options.init) await loadCheckpoint(options.init, parameters, weights);
    else await initialize(device, parameters, model, BigInt(options.seed));
    await optimizer.create(parameters);
  }

  const shape = [options.batch, pairs.size, pairs.size, 3];
  const loss = negativePsnr(model.forward(input('degraded', shape)), input('clean', shape));
  const { nodes, norm } = optimizer.updates(grad(loss, optimizer.weights));
  using program = await device.compile({ outputs: { loss, norm }, updates: nodes }, { parameters });
  onStart?.({ parameters: model.parameterCount, peakBytes: program.peakBytes, from });

  const save = async (step: number): Promise<void> => {
    await saveCheckpoint(checkpointPath(options.out, step), parameters, leaves, { step: String(step), ...key });
    await pruneCheckpoints(options.out);
  };
  let next = pairs.batch(from, options.batch);
  for (let step = from; step < options.steps; step++) {
    const start = performance.now();
    const { degraded, clean } = await next;
    const lr = learningRate(step, options);
    const running = program.run({ degraded, clean, ...optimizer.feeds(step + 1, lr) });
    if (step + 1 < options.steps) next = pairs.batch(step + 1, options.batch);
    const values = await running;
    const done = step + 1;
    onStep?.({
      step: done,
      steps: options.steps,
      loss: values.loss[0],
      norm: values.norm[0],
      lr,
      seconds: (performance.now() - start) / 1000,
    });
    if (done % options.checkpointEvery === 0 || done === options.steps || signal?.aborted) await save(done);
    if (signal?.aborted && done < options.steps) {
      await next;
      return undefined;
    }
  }
  const path = join(options.out, 'face-256.safetensors');
  const metadata = { format: 'refl-native/onestep', config: JSON.stringify(options.config) };
  await saveCheckpoint(path, parameters, optimizer.averages(), metadata, 'F16');
  return path;
}

function learningRate(step: number, { lr, steps }: BaseOptions): number {
  const warm = Math.min(1, (step + 1) / 200);
  return lr * warm * (0.01 + 0.99 * 0.5 * (1 + Math.cos((Math.PI * step) / steps)));
}

/** What decides the numbers of a run: a resumed one must have the same. */
const decisive = ({ config, steps, batch, lr, seed }: BaseOptions, { size }: PairSource): object => ({
  config,
  steps,
  batch,
  crop: size,
  lr,
  seed,
});
