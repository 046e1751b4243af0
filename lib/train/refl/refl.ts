import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { Lock } from '../../data/lock.ts';
import type { PairSource } from '../../data/pairs.ts';
import { ReflError } from '../../errors.ts';
import { makeFolder } from '../../image/files.ts';
import type { Device, Parameters } from '../../runtime/index.ts';
import { EventWriter } from '../events.ts';
import { checkpointPath, removeUnfinished, runKey } from '../resume.ts';
import { type Course, drawnAs, type ReflModels, Session, type SessionOptions, type StepFigures } from './session.ts';
import { States } from './state.ts';
import { type Each, type Validation, writeGrid } from './validation.ts';
import { type Alarm, alarmsOf, type Observation } from './watch.ts';

export interface ReflOptions extends SessionOptions {
  /** Folder for checkpoints and events. */
  readonly out: string;
  readonly steps: number;
  /** Steps between checkpoints; the last two are kept. */
  readonly checkpointEvery: number;
  /** Steps between looks at held-out images, which are also taken before the first step and after the last; 500 by default. */
  readonly validateEvery?: number;
  /** Go on from a state of a run with other options than these, which is refused otherwise. */
  readonly override?: boolean;
  /** What is done when a look raises an alarm; `warn` by default. */
  readonly onAlarm?: OnAlarm;
}

/**
 * `warn`: tell. `pause`: write a state and end with ERR_ALARM; the same call goes on. `rollback`: go back to the last look that
 * raised nothing, draw other crops and noise from there on, and learn at half the rate; after {@link mostAnswers} times, pause.
 * `strengthen`: from now on the judge learns twice as often, and drift costs twice as much; so many times, then warn.
 */
export type OnAlarm = 'warn' | 'pause' | 'rollback' | 'strengthen';

/** So often a run is rolled back, or strengthened. */
const mostAnswers = 3;

export interface ReflStep extends StepFigures {
  /** From 1. */
  readonly step: number;
  readonly steps: number;
  readonly seconds: number;
  /** Steps up to this one, since it was started, that changed nothing because their gradients were not finite. */
  readonly skipped: number;
}

export interface ReflStart {
  /** How many values train. */
  readonly trained: number;
  /** Bytes of the programs; of weights, gradients and moments. */
  readonly peakBytes: number;
  readonly stateBytes: number;
  /** Bytes of moments that wait in the host's memory. */
  readonly hostBytes: number;
  /** Steps that were made already. */
  readonly from: number;
  /** Options that differ from those the state was trained with, and were overridden. */
  readonly overridden: readonly string[];
}

/** A look at held-out images. */
export interface ReflObservation {
  /** Steps that were made. */
  readonly step: number;
  readonly observation: Observation;
  /** The same image by image. */
  readonly each: Each;
  /** What has become worse since the first look in a way that the reward does not tell. */
  readonly alarms: readonly Alarm[];
  /** What was done about them. */
  readonly answer?: OnAlarm;
  /** Where the pictures lie: what came in, what was made of it, and the photograph, side by side. */
  readonly preview: string;
}

export interface ReflEvents {
  /** Ends training after the step under way; a checkpoint is written first. */
  readonly signal?: AbortSignal;
  readonly onStart?: (start: ReflStart) => void;
  readonly onStep?: (step: ReflStep) => void;
  /** A promise is awaited, so what it writes is there before the checkpoint of its step. */
  readonly onObserved?: (seen: ReflObservation) => unknown;
}

/** So many steps in a row without a finite gradient end a run. */
const mostBad = 10;

/**
 * Trains a restorer by the rewards of its images (DiffusionReward): in each step images are restored with the weights as they
 * are, the losses' gradients go back through the last denoising steps, and every few steps the judge learns that the
 * photographs are better. Everything drawn depends on the seed and the step only, so a run that goes on from its newest state ends
 * with the same bits as one that never stopped. A step whose gradients are not finite changes nothing, and no state is written
 * after it. Throws ERR_DIVERGED where ten follow each other, ERR_CHECKPOINT where the newest state belongs to another run.
 *
 * @param parameters hold the values of all models; those of what trains are replaced by a newer state in `out`
 * @returns where the state after the last step lies, of an earlier run if that went further, or undefined when `signal` ended training early
 */
export async function trainRefl(
  device: Device,
  parameters: Parameters,
  pairs: PairSource,
  { validation, ...models }: ReflModels & { readonly validation?: Validation },
  options: ReflOptions,
  { signal, onStart, onStep, onObserved }: ReflEvents = {},
): Promise<string | undefined> {
  // Where moments wait changes no bits: a run may go on with them elsewhere.
  const { offload: __, ...rest } = options;
  const { out, steps, checkpointEvery, validateEvery = 500, override = false, onAlarm = 'warn', ...decisive } = rest;
  await makeFolder(out);
  using _ = await Lock.take(join(out, '.lock'), out);
  await removeUnfinished(out);
  using session = new Session(models, options);
  await session.create(parameters);
  const weights = Object.entries(models.terms).map(([name, { weight }]) => [name, weight]);
  const { trainee, caption, captions, files } = models;
  const said = captions?.map(({ text, ids }) => [text, [...ids]]);
  const words = said && createHash('sha256').update(JSON.stringify(said));
  const data = { side: pairs.size, caption: [...caption], captions: words?.digest('hex'), pictures: pairs.digest };
  const told = { weights, ...data, recipe: trainee.recipe, device: device.kind, files };
  const key = runKey({ ...decisive, ...told }, device);
  const states = new States(out, key, session.storeOf(parameters), session);
  const { progress } = states;
  const overridden = await states.resume(override);
  await session.compile(device, parameters, pairs.size);
  if (onAlarm === 'strengthen' && !options.moving && !session.isHeld) {
    throw new ReflError(
      'ERR_OPTION',
      'there is nothing to strengthen: no judge learns, and nothing is kept from drifting',
    );
  }
  const { trained, peakBytes, hostBytes } = session;
  const from = progress.step;
  onStart?.({ trained, peakBytes, stateBytes: parameters.bytes, hostBytes, from, overridden });

  await using logs = new Logs(out);
  await logs.begin(from + 1);
  const observe = async (): Promise<OnAlarm | undefined> => {
    if (!validation) return undefined;
    const { step } = progress;
    const { observation, each, grid } = await validation.observe();
    progress.first ??= observation;
    const preview = join(out, `preview-${String(step).padStart(8, '0')}.png`);
    await writeGrid(preview, grid);
    const alarms = alarmsOf(progress.first, observation);
    await logs.scalars(step, observedScalars(observation, alarms));
    const answer = alarms.length ? answerTo(onAlarm, session.course) : undefined;
    await onObserved?.({ step, observation, each, alarms, preview, answer });
    if (!alarms.length && onAlarm === 'rollback') await states.keep();
    if (answer === 'strengthen') session.course.strength++;
    return answer;
  };
  if (!from) await observe();
  const load = (step: number) => pairs.batch(drawnAs(step, session.course), options.batch * options.accumulate);
  let next = load(from);
  let bad = 0;
  let skipped = 0;
  while (progress.step < steps) {
    const start = performance.now();
    const images = await next;
    if (progress.step + 1 < steps) next = load(progress.step + 1);
    next.catch(() => {}); // met where it is awaited
    const figures = await session.step(progress.step, images);
    const done = ++progress.step;
    bad = Number.isFinite(figures.norm) ? 0 : bad + 1;
    skipped += bad ? 1 : 0;
    onStep?.({ step: done, steps, ...figures, seconds: (performance.now() - start) / 1000, skipped });
    await logs.scalars(done, scalarsOf(figures));
    if (bad === mostBad) {
      throw new ReflError(
        'ERR_DIVERGED',
        `${bad} steps in a row up to ${done} had no finite gradient; go on from the newest checkpoint in ${out} with a lower learning rate`,
      );
    }
    const answer = done % validateEvery === 0 || done === steps ? await observe() : undefined;
    if (answer === 'rollback') {
      await next.catch(() => {});
      await states.rollBack();
      if (signal?.aborted) return undefined;
      await logs.begin(progress.step + 1);
      next = load(progress.step);
      continue;
    }
    // What led to gradients that are not finite would push the states from before it out.
    const isDue = done % checkpointEvery === 0 || signal?.aborted || answer === 'pause';
    if (done === steps || (!bad && isDue)) await states.save();
    if (done < steps && (signal?.aborted || answer === 'pause')) {
      await next.catch(() => {});
      if (answer !== 'pause') return undefined;
      const how = 'the same command goes on from here, with --on-alarm warn without pausing again';
      throw new ReflError('ERR_ALARM', `paused after step ${done}, where the watch raised alarms: ${how}`);
    }
  }
  return checkpointPath(out, Math.max(from, steps));
}

/** What is done about alarms at this point of a run. */
function answerTo(onAlarm: OnAlarm, { branch, strength }: Course): OnAlarm {
  if (onAlarm === 'rollback' && branch === mostAnswers) return 'pause';
  return onAlarm === 'strengthen' && strength === mostAnswers ? 'warn' : onAlarm;
}

/** A run's event files: one for each time that it begins or goes back. */
class Logs {
  private readonly folder: string;
  private writer: EventWriter | undefined;

  constructor(folder: string) {
    this.folder = folder;
  }

  /** @param step the next one that will be written */
  async begin(step: number): Promise<void> {
    await this.writer?.close();
    this.writer = await EventWriter.open(this.folder, step);
  }

  scalars(step: number, values: Readonly<Record<string, number>>): Promise<void> {
    return this.writer!.scalars(step, values);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.writer?.close();
  }
}

const tagged = (folder: string, values: Readonly<Record<string, number>>): [string, number][] =>
  Object.entries(values).map(([name, value]) => [`${folder}/${name}`, value]);

/** What was seen of held-out images by TensorBoard's tags. */
function observedScalars(
  { distances, others, ...rest }: Observation,
  alarms: readonly Alarm[],
): Record<string, number> {
  return Object.fromEntries(tagged('validation', { ...rest, ...distances, ...others, alarms: alarms.length }));
}

/** A step's figures by TensorBoard's tags. */
function scalarsOf({ losses, norms, norm, judge }: StepFigures): Record<string, number> {
  return Object.fromEntries([
    ...tagged('loss', losses),
    ...tagged('gradient', { ...norms, weights: norm }),
    ...tagged('judge', judge ? { ...judge } : {}),
  ]);
}
