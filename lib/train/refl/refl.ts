import { join } from 'node:path';
import { Lock } from '../../data/lock.ts';
import type { PairSource } from '../../data/pairs.ts';
import { ReflError } from '../../errors.ts';
import { makeFolder } from '../../image/files.ts';
import type { Device, Parameters } from '../../runtime/index.ts';
import { openSafetensors } from '../../weights/safetensors.ts';
import { overwriteFrom, saveCheckpoint } from '../checkpoint.ts';
import { EventWriter } from '../events.ts';
import {
  checkpointPath,
  checkResumable,
  newestCheckpoint,
  pruneCheckpoints,
  removeUnfinished,
  runKey,
} from '../resume.ts';
import { type ReflModels, Session, type SessionOptions, type StepFigures } from './session.ts';
import { type Validation, writeGrid } from './validation.ts';
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
}

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
  /** What has become worse since the first look in a way that the reward does not tell. */
  readonly alarms: readonly Alarm[];
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
  const { out, steps, checkpointEvery, validateEvery = 500, override = false, ...decisive } = options;
  await makeFolder(out);
  using _ = await Lock.take(join(out, '.lock'), out);
  await removeUnfinished(out);
  using session = new Session(models, options);
  await session.create(parameters);
  const weights = Object.entries(models.terms).map(([name, { weight }]) => [name, weight]);
  const { trainee, caption } = models;
  const data = { side: pairs.size, caption: [...caption], pictures: pairs.digest };
  const told = { weights, ...data, recipe: trainee.recipe, device: device.kind };
  const key = runKey({ ...decisive, ...told }, device);
  const newest = await newestCheckpoint(out);
  let from = 0;
  let overridden: readonly string[] = [];
  let first: Observation | undefined;
  if (newest) {
    const { metadata } = await openSafetensors(newest);
    overridden = checkResumable(newest, metadata, key, override);
    await overwriteFrom(newest, parameters, session.leaves, override);
    from = Number(metadata.step);
    session.judged = Number(metadata.judged);
    first = metadata.first ? JSON.parse(metadata.first) : undefined;
  }
  await session.compile(device, parameters, pairs.size);
  const { trained, peakBytes } = session;
  onStart?.({ trained, peakBytes, stateBytes: parameters.bytes, from, overridden });

  await using log = await EventWriter.open(out, from + 1);
  const observe = async (step: number): Promise<void> => {
    if (!validation) return;
    const { observation, grid } = await validation.observe();
    first ??= observation;
    const preview = join(out, `preview-${String(step).padStart(8, '0')}.png`);
    await writeGrid(preview, grid);
    const alarms = alarmsOf(first, observation);
    await log.scalars(step, observedScalars(observation, alarms));
    await onObserved?.({ step, observation, alarms, preview });
  };
  if (!from) await observe(0);
  const load = (step: number) => pairs.batch(step, options.batch * options.accumulate);
  let next = load(from);
  let bad = 0;
  let skipped = 0;
  for (let done = from; done < steps; ) {
    const start = performance.now();
    const images = await next;
    if (done + 1 < steps) next = load(done + 1);
    next.catch(() => {}); // met where it is awaited
    const figures = await session.step(done, images);
    done++;
    bad = Number.isFinite(figures.norm) ? 0 : bad + 1;
    skipped += bad ? 1 : 0;
    onStep?.({ step: done, steps, ...figures, seconds: (performance.now() - start) / 1000, skipped });
    await log.scalars(done, scalarsOf(figures));
    if (bad === mostBad) {
      throw new ReflError(
        'ERR_DIVERGED',
        `${bad} steps in a row up to ${done} had no finite gradient; go on from the newest checkpoint in ${out} with a lower learning rate`,
      );
    }
    if (done % validateEvery === 0 || done === steps) await observe(done);
    // What led to gradients that are not finite would push the states from before it out.
    if (done === steps || (!bad && (done % checkpointEvery === 0 || signal?.aborted))) {
      const progress = { step: String(done), judged: String(session.judged) };
      const metadata = { ...progress, ...(first ? { first: JSON.stringify(first) } : {}), ...key };
      await saveCheckpoint(checkpointPath(out, done), parameters, session.leaves, metadata);
      await pruneCheckpoints(out);
    }
    if (signal?.aborted && done < steps) {
      await next.catch(() => {});
      return undefined;
    }
  }
  return checkpointPath(out, Math.max(from, steps));
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
