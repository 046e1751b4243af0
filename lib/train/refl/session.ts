import { Draws } from '../../data/draws.ts';
import type { Pairs } from '../../data/pairs.ts';
import type { TypedArray } from '../../graph/dtype.ts';
import { input, parameterLeaf, type Tensor } from '../../graph/tensor.ts';
import type { CLIP } from '../../models/clip.ts';
import type { Device, Parameters } from '../../runtime/index.ts';
import type { Leaves, Store } from '../checkpoint.ts';
import { Learner, type LearnerPrograms } from '../learner.ts';
import type { Offload } from '../offload.ts';
import { judgeGraph } from './judge.ts';
import { objective, type Weighted } from './objective.ts';
import type { Precision } from './restored.ts';
import type { Sample, Trainee } from './trainees.ts';

/** How the judge goes on learning. */
export interface MovingOptions {
  /** Steps of the restorer for each of the judge. */
  readonly every: number;
  /** The first and last steps, from 1, of the times at which it learns; always when left out. */
  readonly during?: readonly (readonly [first: number, last: number])[];
  readonly lr: number;
  /** Factor of its loss. */
  readonly weight: number;
  /** Of matrices only. */
  readonly weightDecay: number;
  /** Longest gradient. */
  readonly clip: number;
}

/** DiffusionReward's. */
export const paperJudge: MovingOptions = { every: 10, lr: 2e-6, weight: 0.1, weightDecay: 0.35, clip: 1 };

export interface SessionOptions extends Precision {
  /** Images a batch, and batches a step: a step is made of the mean gradient of all of them. */
  readonly batch: number;
  readonly accumulate: number;
  /** Constant. */
  readonly lr: number;
  /** Of matrices only. */
  readonly weightDecay: number;
  /** Longest gradient; none is shortened without. */
  readonly clip?: number;
  readonly seed: number;
  /** Weight of the drift from what the restorer was. */
  readonly drift: number;
  /** What must not drift: what the trainee names, where it names something, or the weights that train, tensor by tensor. */
  readonly kept?: Kept;
  /** Left out: the judge stays as it is. */
  readonly moving?: MovingOptions;
  /** Whether the judge's blocks are computed a second time as it learns, to save memory. */
  readonly recompute?: boolean;
  /** Whether AdamW's moments wait in the host's memory between updates: less memory of the device, the same bits. */
  readonly offload?: boolean;
  readonly compat?: Compat;
}

/**
 * `official` repeats what DiffusionReward's public code does and does not mean to: sums are cleared before every batch, so that of a
 * step's batches only the last one counts, and images are made small for the judge without antialiasing. Restorers of DiffBIR's
 * form also run the frozen ControlNet on all steps of the walk, where nobody looks at it.
 */
export type Compat = 'official';

export type Kept = 'features' | 'weights';

/** What trains, and what by. All values are in the same parameters. */
export interface ReflModels {
  readonly trainee: Trainee;
  /** The losses of the images by name. */
  readonly terms: Readonly<Record<string, Weighted>>;
  /** The face reward model that moves, with what of it trains marked. */
  readonly judge: CLIP;
  /** Tokens of the caption of pictures that have none of their own. */
  readonly caption: Int32Array;
  /** Captions by the numbers of {@link StepImages}' pictures. */
  readonly captions?: readonly Caption[];
  /** Digests of the files that networks are from, by what those are: a run that goes on must have the same. */
  readonly files?: Readonly<Record<string, string>>;
}

/** What a picture shows: in words for the restorer, if it reads any, and as the judge's tokens. */
export interface Caption {
  readonly text: string;
  readonly ids: Int32Array;
}

/** What changes in a run beside the weights. */
export interface Course {
  /** Updates of the judge that were made. */
  judged: number;
  /** How often the run was rolled back: each time it takes another way, at half the rate. */
  branch: number;
  /** How often it was strengthened: each time the judge learns twice as often and the drift costs twice as much. */
  strength: number;
}

/** Numbers of steps that no run reaches: what is drawn in one branch is not drawn in another. */
const branchSteps = 2 ** 24;

/** The number that says what is drawn in step number `step`, from 0. */
export const drawnAs = (step: number, { branch }: Course): number => step + branch * branchSteps;

/** Whether the judge learns in step number `step`, from 1. */
export function learnsIn(step: number, { every, during }: MovingOptions, { strength }: Course): boolean {
  const isTime = !during || during.some(([first, last]) => first <= step && step <= last);
  return isTime && step % Math.max(1, Math.floor(every / 2 ** strength)) === 0;
}

/** What a step came to. */
export interface StepFigures {
  /** Mean losses by name, unweighted, and `total`. */
  readonly losses: Readonly<Record<string, number>>;
  /** Mean norms of the weighted losses' gradients: at the images, and at the features that drift. */
  readonly norms: Readonly<Record<string, number>>;
  /** Norm of the mean gradient by the weights; a step at which it is not finite changes nothing. */
  readonly norm: number;
  /** Of a step at which the judge learned: its mean loss, and by how much it then preferred the photographs. */
  readonly judge?: { readonly loss: number; readonly margin: number };
}

/** The images of a step, [batch * accumulate, side, side, 3] in [0, 1]. */
export type StepImages = Pairs;

/** The learners of a run and their programs: what makes a step. */
export class Session {
  /** What a checkpoint holds. */
  readonly leaves: Leaves;
  readonly course: Course = { judged: 0, branch: 0, strength: 0 };
  /** Whether the restorer is kept from drifting away from what it was. */
  isHeld = false;
  private readonly models: ReflModels;
  private readonly options: SessionOptions;
  private readonly restorer: Learner;
  private readonly judge: Learner | undefined;
  /** What the weights were when all began, where they must not drift from that. */
  private readonly before: readonly Tensor[];
  private programs: { restorer: LearnerPrograms; judge?: LearnerPrograms } | undefined;

  constructor(models: ReflModels, options: SessionOptions) {
    this.models = models;
    this.options = options;
    const { weightDecay, clip, moving, kept, offload } = options;
    this.restorer = new Learner(models.trainee.module, { weightDecay, clip, offload, average: false });
    const { weights } = this.restorer;
    this.before = kept === 'weights' ? weights.map(({ shape, dtype }) => parameterLeaf(shape, dtype)) : [];
    this.judge = moving && new Learner(models.judge, { ...moving, offload, average: false });
    const learners = { restorer: this.restorer, ...(this.judge ? { judge: this.judge } : {}) };
    this.leaves = new Map(
      Object.entries(learners).flatMap(([name, { leaves }]) =>
        [...leaves].map(([key, leaf]) => [`${name}.${key}`, leaf] as const),
      ),
    );
  }

  /** How many values of the restorer train. */
  get trained(): number {
    return this.restorer.weights.reduce((sum, { size }) => sum + size, 0);
  }

  /** Bytes of the programs beside the parameters, those of the trainee included. */
  get peakBytes(): number {
    const programs = Object.values(this.programs ?? {});
    return programs.reduce((sum, { peakBytes }) => sum + peakBytes, this.models.trainee.peakBytes);
  }

  /** Bytes of the optimizers' state that are in the host's memory. */
  get hostBytes(): number {
    return this.offloads.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Where the values of {@link leaves} are. */
  storeOf(parameters: Parameters): Store {
    const of = (leaf: Tensor): Store => this.offloads.find((offload) => offload.has(leaf)) ?? parameters;
    return {
      has: (leaf) => of(leaf).has(leaf),
      read: (leaf) => of(leaf).read(leaf),
      write: (leaf, values) => of(leaf).write(leaf, values),
    };
  }

  private get offloads(): Offload[] {
    return [this.restorer, this.judge].flatMap((learner) => learner?.offload ?? []);
  }

  /** Makes the optimizers' state beside the weights, which have the values that they begin with. */
  async create(parameters: Parameters): Promise<void> {
    for (const [i, leaf] of this.before.entries()) {
      parameters.add(leaf, { data: await parameters.read(this.restorer.weights[i]), frozen: true });
    }
    await this.restorer.create(parameters);
    await this.judge?.create(parameters);
  }

  /** @param side of the images */
  async compile(device: Device, parameters: Parameters, side: number): Promise<void> {
    const { trainee, terms, judge, caption } = this.models;
    const { batch, accumulate, drift, moving, recompute, compute, compat } = this.options;
    const { images, drift: features } = trainee.restore(batch);
    const pairs = this.before.length
      ? this.before.map((leaf, i) => [this.restorer.weights[i], leaf] as const)
      : features;
    const targets = input('targets', [batch, side, side, 3]);
    const captions = input('captions', [batch, caption.length], 'i32');
    this.isHeld = pairs.length > 0 && drift > 0;
    const kept = pairs.length ? { weight: drift, strength: input('strength', []), pairs } : undefined;
    const { losses, norms, gradients } = objective({ images, targets, captions }, terms, kept);
    const named = (prefix: string, tensors: typeof losses): typeof losses =>
      Object.fromEntries(Object.entries(tensors).map(([name, tensor]) => [prefix + name, tensor]));
    const graph = {
      outputs: { images, ...named('loss.', losses), ...named('norm.', norms) },
      gradients: gradients(this.restorer.weights),
    };
    const restorer = await this.restorer.compile(device, parameters, graph, accumulate);
    this.programs = { restorer };
    if (!this.judge || !moving) return;
    const { weight } = moving;
    const how = { batch, side, weight, recompute, compute, antialias: compat !== 'official' };
    const learned = compat === 'official' ? 1 : accumulate;
    const judging = judgeGraph(judge, this.judge.weights, how);
    this.programs = { restorer, judge: await this.judge.compile(device, parameters, judging, learned) };
  }

  /** Step number `step`, from 0. */
  async step(step: number, { degraded, clean, pictures }: StepImages): Promise<StepFigures> {
    const { trainee, caption, captions } = this.models;
    const { batch, accumulate, lr, seed, moving, compat } = this.options;
    const { course } = this;
    const [drawn, strength] = [drawnAs(step, course), Float32Array.of(2 ** course.strength)];
    const { restorer, judge } = this.programs!;
    const size = degraded.length / (batch * accumulate);
    const part = (all: Float32Array, first: number, count: number): Float32Array =>
      all.subarray(first * size, (first + count) * size);
    const said = (place: number): Caption | undefined => captions?.[pictures?.[place] ?? -1];
    const beside = (k: number) => {
      const ids = new Int32Array(batch * caption.length);
      for (let i = 0; i < batch; i++) ids.set(said(k * batch + i)?.ids ?? caption, i * caption.length);
      return { targets: part(clean, k * batch, batch), captions: ids };
    };

    const found: Record<string, TypedArray>[] = [];
    for (let k = 0; k < accumulate; k++) {
      const samples = Array.from({ length: batch }, (_, i): Sample => {
        const place = k * batch + i;
        return { degraded: part(degraded, place, 1), draws: new Draws(seed, drawn, place), text: said(place)?.text };
      });
      // What is added first clears what was there.
      const place = compat === 'official' ? 0 : k;
      found.push(await restorer.add({ ...(await trainee.enter(samples)), ...beside(k), strength }, place));
    }
    const norm = await restorer.update(step + 1, lr / 2 ** course.branch);
    const figures = { losses: means(found, 'loss.'), norms: means(found, 'norm.'), norm };
    if (!judge || !moving || !learnsIn(step + 1, moving, course)) return figures;

    const told: Record<string, TypedArray>[] = [];
    const first = compat === 'official' ? accumulate - 1 : 0;
    for (let k = first; k < accumulate; k++) {
      told.push(await judge.add({ restored: found[k].images, ...beside(k) }, k - first));
    }
    course.judged++;
    await judge.update(course.judged, moving.lr);
    const { loss, margin } = means(told, '');
    return { ...figures, judge: { loss, margin } };
  }

  dispose(): void {
    this.programs?.restorer.dispose();
    this.programs?.judge?.dispose();
    this.programs = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Means over batches of the outputs of one value whose names begin with `prefix`, by the rest of the name. */
function means(batches: readonly Record<string, TypedArray>[], prefix: string): Record<string, number> {
  const names = Object.keys(batches[0]).filter((name) => name.startsWith(prefix) && batches[0][name].length === 1);
  const mean = (name: string): number =>
    batches.reduce((sum, { [name]: [value] }) => sum + Number(value), 0) / batches.length;
  return Object.fromEntries(names.map((name) => [name.slice(prefix.length), mean(name)]));
}
