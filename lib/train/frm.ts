import { createHash } from 'node:crypto';
import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { Draws } from '../data/draws.ts';
import { Lock } from '../data/lock.ts';
import { ReflError } from '../errors.ts';
import { fileError, makeFolder } from '../image/files.ts';
import { CLIP, type CLIPConfig } from '../models/clip.ts';
import { initialize } from '../nn/init.ts';
import { openClip } from '../reward/clip_file.ts';
import { type Unlocked, unlock } from '../reward/frm.ts';
import { Pictures, type Preprocessing } from '../reward/pictures.ts';
import type { Device, Parameters } from '../runtime/index.ts';
import { ClipTokenizer } from '../text/tokenizer.ts';
import type { WeightsFile } from '../weights/format.ts';
import { type Loadable, loadWeights } from '../weights/load.ts';
import { openSafetensors } from '../weights/safetensors.ts';
import { loadCheckpoint, saveCheckpoint } from './checkpoint.ts';
import { EventWriter } from './events.ts';
import { type Judgement, PreferenceTrainer } from './frm_programs.ts';
import type { Label } from './labels.ts';
import { PreferenceData, Rounds, ways } from './preference_data.ts';
import {
  checkpointPath,
  checkResumable,
  newestCheckpoint,
  pruneCheckpoints,
  removeUnfinished,
  runKey,
} from './resume.ts';

export interface FrmOptions {
  /** Weights of HPS v2, or of any CLIP as RewardModel takes them, to start from; or the configuration of one to be drawn anew. */
  readonly from: string | CLIPConfig;
  readonly tokenizer: string;
  /** Folder for checkpoints, events and the finished weights. */
  readonly out: string;
  readonly steps: number;
  /** Pairs a batch, and batches a step: a step is made of the summed gradient of all their pairs. */
  readonly batch: number;
  readonly accumulate: number;
  /** Peak learning rate: it grows over `warmup` steps and falls to 0 along a cosine. */
  readonly lr: number;
  readonly warmup: number;
  /** Of matrices only. */
  readonly weightDecay: number;
  /** What trains, counted from the outputs; `all` for a model that is drawn anew. */
  readonly unlocked: Unlocked | 'all';
  readonly seed: number;
  readonly preprocessing: Preprocessing;
  /**
   * Whether both pictures of a pair are mirrored and turned by quarters alike, in a way drawn anew each time: for judges of
   * how clear pictures are and not of what they show, which a few people's pictures can then teach. Judging leaves them as they are.
   */
  readonly turn: boolean;
  /** Whether the averages of the weights are judged and kept instead of the weights. */
  readonly average: boolean;
  /** Whether blocks are computed a second time in the backward pass, to save memory. */
  readonly recompute: boolean;
  /** What the towers compute in; weights, moments and sums stay float32. On the CPU bf16 saves no time. */
  readonly dtype: 'f32' | 'bf16';
  /** Caption of pairs that have none. */
  readonly caption?: string;
  /** Train on people's labels alone. */
  readonly onlyPeople: boolean;
  /** Steps between judgements on the pairs of held-out people, and how many may pass without a better one before training ends. */
  readonly evalEvery: number;
  readonly patience: number;
  /** Steps between checkpoints; the last two are kept. */
  readonly checkpointEvery: number;
}

export interface FrmStep {
  readonly step: number;
  readonly steps: number;
  readonly loss: number;
  /** Share of the step's decided pairs that the model ordered as their labels do, before the step. */
  readonly accuracy: number;
  /** Norm of the gradient, summed over all pairs; a step at which it is not finite changes nothing. */
  readonly norm: number;
  readonly lr: number;
  readonly seconds: number;
}

export interface FrmStart {
  readonly parameters: number;
  readonly trained: number;
  readonly pairs: number;
  readonly heldOut: number;
  /** Captions that are too long and lose their end. */
  readonly shortened: number;
  /** Bytes of the programs beside the weights; of weights, gradients and moments. */
  readonly peakBytes: number;
  readonly stateBytes: number;
  readonly from: number;
}

export interface FrmEvents {
  /** Ends training after the step under way; a checkpoint is written first. */
  readonly signal?: AbortSignal;
  readonly onStart?: (start: FrmStart) => void;
  readonly onStep?: (step: FrmStep) => void;
  readonly onJudged?: (step: number, judgement: Judgement, best: boolean) => void;
}

export interface FrmResult {
  readonly best: { readonly path: string; readonly step: number; readonly accuracy: number };
  readonly last: { readonly path: string; readonly step: number };
}

/** What a checkpoint holds beside tensors. */
interface Progress {
  step: number;
  best: { step: number; accuracy: number; loss: number };
  /** Judgements since the best. */
  stale: number;
}

/** Sets the draws of turns apart from those of the order of pairs ("turn"). */
const turns = 0x7475726e;

const noBest = { step: 0, accuracy: -1, loss: Infinity };

/**
 * Trains a face reward model: CLIP's towers by the two-way cross entropy of s = cos(image, text) / tau over labelled pairs, with
 * HPS v2's optimizer (AdamW, betas 0.9 and 0.98, eps 1e-6, logit scale of at most ln 100). Judged on people's choices about
 * held-out people: `best.safetensors` is what did best, `last.safetensors` the end, both for RewardModel; `step-*` the
 * state to go on from. Everything drawn depends on the seed and the step only, so a run that goes on from its newest state
 * ends with the same bits as one that never stopped, however it was stopped.
 *
 * @param labels pairs for training and, of held-out people, with people's labels, for judging; ERR_DATA without either
 * @returns where the weights lie, or undefined when `signal` ended training early
 */
export async function trainFrm(
  device: Device,
  labels: readonly Label[],
  options: FrmOptions,
  events: FrmEvents = {},
): Promise<FrmResult | undefined> {
  const { out } = options;
  await makeFolder(out);
  using _ = await Lock.take(join(out, '.lock'), out);
  await removeUnfinished(out);
  const training = labels.filter(({ split, source }) => split === 'train' && !(options.onlyPeople && source === 'svm'));
  const judging = labels.filter(({ split, source }) => split === 'heldout' && source === 'people');
  if (!training.some(({ share }) => share !== 0.5)) throw new ReflError('ERR_DATA', 'no pair to train on is decided');
  if (!judging.some(({ share }) => share !== 0.5)) {
    throw new ReflError('ERR_DATA', 'people decided no pair of held-out people: there is nothing to judge by');
  }

  const { clip, config, file } = await modelOf(options);
  const tokenizer = await ClipTokenizer.load(options.tokenizer);
  if (tokenizer.size !== config.text_cfg.vocab_size) {
    const both = `${tokenizer.size} tokens, the model's table ${config.text_cfg.vocab_size} rows`;
    throw new ReflError('ERR_OPTION', `${options.tokenizer} has ${both}`);
  }
  using pictures = new Pictures(device, clip.visual.imageSize[0], options.preprocessing);
  const data = new PreferenceData(pictures, tokenizer, config.text_cfg.context_length, options.caption);
  const shortened = data.check([...training, ...judging]);
  const trained = options.unlocked === 'all' ? clip.train(true).parameterCount : unlock(clip, options.unlocked);

  using parameters = device.parameters();
  const key = runKey(await decisive(options, config, labels, file, device), device);
  const newest = await newestCheckpoint(out);
  const trainer = new PreferenceTrainer(clip, options);
  const state: Progress = { step: 0, best: noBest, stale: 0 };
  const isDone = ({ step, stale }: Progress): boolean => step >= options.steps || stale >= options.patience;
  if (newest) {
    const { metadata } = await openSafetensors(newest);
    const kept = JSON.parse(metadata.progress ?? '{}') as Progress;
    // Where nothing more is computed no bit depends on the number of threads.
    checkResumable(newest, metadata, isDone(kept) ? { ...key, threads: metadata.threads } : key);
    await loadCheckpoint(newest, parameters, trainer.learner.leaves);
    Object.assign(state, kept);
  }
  await loadRest(device, parameters, clip, file, options.seed);
  if (!newest) await trainer.learner.create(parameters);
  using programs = await trainer.compile(device, parameters);
  events.onStart?.({
    parameters: clip.parameterCount,
    trained,
    pairs: training.length,
    heldOut: judging.length,
    shortened,
    peakBytes: programs.peakBytes,
    stateBytes: parameters.bytes,
    from: state.step,
  });

  const rounds = new Rounds(training, options.seed);
  const perStep = options.batch * options.accumulate;
  const load = (place: number) => {
    const wayOf = (i: number): number => (options.turn ? new Draws(options.seed, turns, place + i).below(ways) : 0);
    return data.batch(rounds.take(place, options.batch), wayOf);
  };
  const shipped = new Map([
    ...[...clip.namedParameters()].map(([k, { value }]) => [k, value] as const),
    ...trainer.learner.averages(),
  ]);
  const ship = async (name: string, facts: Record<string, string>): Promise<string> => {
    const path = join(out, name);
    const metadata = { config: JSON.stringify(config), step: String(state.step), ...facts };
    await saveCheckpoint(path, parameters, shipped, metadata, 'F16');
    return path;
  };

  await using log = await EventWriter.open(out, state.step + 1);
  let next = isDone(state) ? undefined : load(state.step * perStep);
  // A failure to read is met where the batch is awaited, which may be after the step under way.
  next?.catch(() => {});
  while (!isDone(state)) {
    const start = performance.now();
    const lr = learningRate(state.step, options);
    const tally = { loss: 0, correct: 0, decided: 0 };
    for (let k = 0; k < options.accumulate; k++) {
      const batch = await next!;
      const running = programs.add(batch, k);
      const place = state.step * perStep + (k + 1) * options.batch;
      if (place < options.steps * perStep) next = load(place);
      next?.catch(() => {});
      const found = await running;
      tally.loss += found.loss / options.accumulate;
      tally.correct += found.correct;
      tally.decided += found.decided;
    }
    const norm = await programs.update(state.step + 1, lr);
    state.step++;
    const figures = { loss: tally.loss, accuracy: tally.correct / tally.decided, norm, lr };
    events.onStep?.({
      ...{ step: state.step, steps: options.steps, ...figures, seconds: (performance.now() - start) / 1000 },
    });
    await log.scalars(state.step, {
      'train/loss': figures.loss,
      ...(tally.decided ? { 'train/accuracy': figures.accuracy } : {}),
      'train/norm': norm,
      'train/lr': lr,
    });
    if (state.step % options.evalEvery === 0 || state.step === options.steps) {
      const judgement = await programs.judge(judging, data);
      const { accuracy, loss } = judgement;
      const isBest =
        accuracy.share > state.best.accuracy || (accuracy.share === state.best.accuracy && loss < state.best.loss);
      if (isBest) {
        state.best = { step: state.step, accuracy: accuracy.share, loss };
        await ship('best.safetensors', { accuracy: String(accuracy.share) });
      }
      state.stale = isBest ? 0 : state.stale + 1;
      await log.scalars(state.step, { 'validation/accuracy': accuracy.share, 'validation/loss': loss });
      events.onJudged?.(state.step, judgement, isBest);
    }
    const stopping = events.signal?.aborted;
    if (state.step % options.checkpointEvery === 0 || isDone(state) || stopping) {
      const metadata = { progress: JSON.stringify(state), ...key };
      await saveCheckpoint(checkpointPath(out, state.step), parameters, trainer.learner.leaves, metadata);
      await pruneCheckpoints(out);
    }
    if (stopping && !isDone(state)) {
      await next?.catch(() => {});
      return undefined;
    }
  }
  await next?.catch(() => {});
  const last = { path: await ship('last.safetensors', {}), step: state.step };
  const { step, accuracy } = state.best;
  return { best: { path: join(out, 'best.safetensors'), step, accuracy }, last };
}

function learningRate(step: number, { lr, warmup, steps }: FrmOptions): number {
  if (step < warmup) return (lr * (step + 1)) / warmup;
  return (lr * (1 + Math.cos((Math.PI * (step - warmup)) / (steps - warmup)))) / 2;
}

async function modelOf({ from }: FrmOptions): Promise<{ clip: CLIP; config: CLIPConfig; file?: WeightsFile }> {
  if (typeof from !== 'string') return { clip: new CLIP(from), config: from };
  return openClip(from);
}

/** Gives every parameter that has no values yet those of `file`, or draws it. */
async function loadRest(
  device: Device,
  parameters: Parameters,
  clip: CLIP,
  file: WeightsFile | undefined,
  seed: number,
): Promise<void> {
  if (!file) return initialize(device, parameters, clip, BigInt(seed));
  const [has, lacks] = [new Map(), new Map()] as ReturnType<Loadable['namedParameters']>[];
  for (const [key, parameter] of clip.namedParameters())
    (parameters.has(parameter.value) ? has : lacks).set(key, parameter);
  // Keys that came from a checkpoint are known to the model, so they are no fault of the file, and left aside.
  await loadWeights(parameters, { namedParameters: () => lacks, namedBuffers: () => has }, file);
}

/** What decides the numbers of a run: one that goes on must have the same. */
async function decisive(
  options: FrmOptions,
  config: CLIPConfig,
  labels: readonly Label[],
  file: WeightsFile | undefined,
  device: Device,
): Promise<object> {
  const { from: _, tokenizer: __, out: ___, checkpointEvery: ____, ...rest } = options;
  // Pictures may have moved, but are told by their sizes: to read them all again could take hours.
  const told = [];
  for (const { a, b, input: _input, ...label } of labels)
    told.push({ ...label, bytes: [await size(a), await size(b)] });
  const data = createHash('sha256').update(JSON.stringify(told)).digest('hex');
  return { ...rest, config, data, weights: file ? await digestOf(file) : 'drawn', device: device.kind };
}

async function size(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    throw fileError('read', path, error);
  }
}

/** Of all files that hold the weights. */
async function digestOf({ entries }: WeightsFile): Promise<string> {
  const hash = createHash('sha256');
  const paths = new Set([...entries.values()].flatMap(({ pieces }) => pieces.map((piece) => piece.path)));
  for (const path of [...paths].sort()) {
    try {
      for await (const chunk of createReadStream(path, { highWaterMark: 1 << 22 })) hash.update(chunk);
    } catch (error) {
      throw fileError('read', path, error);
    }
  }
  return hash.digest('hex');
}
