import { ReflError } from '../errors.ts';
import { type Share, wilson } from '../eval/interval.ts';
import { grad } from '../graph/grad.ts';
import { affine, cast, clamp, full } from '../graph/ops/elementwise.ts';
import { assign } from '../graph/ops/optim.ts';
import type { Graph } from '../graph/program.ts';
import { substitute } from '../graph/substitute.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { CLIP } from '../models/clip.ts';
import { features, logits, pairedScores, preferenceLoss } from '../reward/hps.ts';
import type { Device, Parameters, Program } from '../runtime/index.ts';
import type { Label } from './labels.ts';
import { Learner, type LearnerPrograms } from './learner.ts';
import type { PairBatch, PreferenceData } from './preference_data.ts';
import { agreement, logistic, logLoss } from './preference_svm.ts';

export interface TrainerOptions {
  readonly batch: number;
  readonly weightDecay: number;
  readonly average: boolean;
  readonly recompute: boolean;
  readonly dtype: 'f32' | 'bf16';
}

/** How a model does on pairs that it was not trained on. */
export interface Judgement {
  /** Of the decided pairs. */
  readonly accuracy: Share;
  /** Mean cross entropy, in nats. */
  readonly loss: number;
}

/** CLIP trains its logit scale up to a hundred times the cosine. */
const mostScale = Math.log(100);

/** The graphs that train a face reward model. */
export class PreferenceTrainer {
  readonly learner: Learner;
  private readonly clip: CLIP;
  private readonly options: TrainerOptions;

  /** @param clip what of it trains is marked */
  constructor(clip: CLIP, options: TrainerOptions) {
    const { weightDecay, average } = options;
    this.clip = clip;
    this.options = options;
    this.learner = new Learner(clip, { weightDecay, average, beta2: 0.98, eps: 1e-6 });
  }

  async compile(device: Device, parameters: Parameters): Promise<TrainerPrograms> {
    const { clip, learner } = this;
    const { batch, recompute, dtype } = this.options;
    const images = cast(input('images', [2 * batch, ...clip.visual.imageSize, 3]), dtype);
    const ids = input('ids', [batch, clip.positional_embedding.value.shape[0]], 'i32');
    const paired = pairedScores(features(clip, images, ids, { recompute }));
    const loss = preferenceLoss(clip, paired, input('shares', [batch, 2]));
    const s = logits(clip, paired);
    const scale = clip.logit_scale.value;
    const limited = assign(full([1], 1), [[scale, clamp(scale, 0, mostScale)]]);

    // HPS v2 sums the loss over the pairs of a step, which Adam's eps is meant for: batches add up, and are not averaged.
    const gradients = grad(affine(loss, batch), learner.weights);
    const learning = await learner.compile(device, parameters, { outputs: { loss, s }, gradients }, 1);
    const compiled: { dispose(): void }[] = [learning];
    const compile = async (graph: Graph): Promise<Program> => {
      const program = await device.compile(graph, { parameters });
      compiled.push(program);
      return program;
    };
    try {
      const limit = await compile({ outputs: {}, updates: clip.logit_scale.trainable ? [limited] : [] });
      const judge = await compile({ outputs: { s: this.averaged(s) } });
      return new TrainerPrograms(batch, learning, limit, judge);
    } catch (error) {
      for (const program of compiled) program.dispose();
      throw error;
    }
  }

  /** The same over the averages of the weights, where there are any. */
  private averaged(output: Tensor): Tensor {
    const averages = this.learner.averages();
    const replaced = [...this.clip.namedParameters()].flatMap(([key, { value }]) => {
      const average = averages.get(key);
      return average && average !== value ? [[value, average] as const] : [];
    });
    return substitute([output], new Map(replaced))[0];
  }
}

/** The compiled graphs, and what a run of each means. */
export class TrainerPrograms {
  private readonly batch: number;
  private readonly learning: LearnerPrograms;
  private readonly limit: Program;
  private readonly judging: Program;

  constructor(batch: number, learning: LearnerPrograms, limit: Program, judging: Program) {
    this.batch = batch;
    this.learning = learning;
    this.limit = limit;
    this.judging = judging;
  }

  /** Bytes of all programs beside the parameters. */
  get peakBytes(): number {
    return this.learning.peakBytes + this.limit.peakBytes + this.judging.peakBytes;
  }

  /** Adds the gradients of batch number `k` of a step to those before it. */
  async add(batch: PairBatch, k: number): Promise<{ loss: number; correct: number; decided: number }> {
    const { loss, s } = await this.learning.add({ ...batch }, k);
    const scores = marginsOf(s).flatMap((margin, i) => {
      const share = batch.shares[2 * i];
      return share === 0.5 ? [] : [agreement(margin, { share })];
    });
    return { loss: loss[0], correct: scores.reduce((sum, score) => sum + score, 0), decided: scores.length };
  }

  /** Makes step number `step`, from 1, of the gradients that were added; returns the norm of their sum over all pairs. */
  async update(step: number, lr: number): Promise<number> {
    const norm = await this.learning.update(step, lr);
    await this.limit.run();
    return norm;
  }

  /** How the weights (or their averages) do on some pairs. Throws ERR_WEIGHTS where a score is not finite. */
  async judge(labels: readonly Label[], data: PreferenceData): Promise<Judgement> {
    const margins: number[] = [];
    const load = (first: number): Promise<PairBatch> => {
      const some = labels.slice(first, first + this.batch);
      // The program takes whole batches: what fills the last one is not counted.
      return data.batch(Array.from({ length: this.batch }, (_, i) => some[i] ?? some[0]));
    };
    let next = load(0);
    while (margins.length < labels.length) {
      const { images, ids } = await next;
      const running = this.judging.run({ images, ids });
      const place = margins.length + this.batch;
      if (place < labels.length) {
        next = load(place);
        next.catch(() => {});
      }
      margins.push(...marginsOf((await running).s).slice(0, labels.length - margins.length));
    }
    if (!margins.every(Number.isFinite)) {
      throw new ReflError(
        'ERR_WEIGHTS',
        'scores are not finite: the weights are unusable, or the learning rate is too high',
      );
    }
    const scores = labels.flatMap((label, i) => (label.share === 0.5 ? [] : [agreement(margins[i], label)]));
    const correct = scores.reduce((sum, score) => sum + score, 0);
    const shares = labels.map(({ share }) => share);
    return { accuracy: wilson(correct, scores.length), loss: logLoss(margins.map(logistic), shares) };
  }

  dispose(): void {
    for (const program of [this.learning, this.limit, this.judging]) program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** By how much A scores above B, of scores [pairs, 2]. */
const marginsOf = (s: ArrayLike<number>): number[] =>
  Array.from({ length: s.length / 2 }, (_, i) => s[2 * i] - s[2 * i + 1]);
