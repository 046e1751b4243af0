import { affine, div, full, maximum, minimum, mul } from '../graph/ops/elementwise.ts';
import { type AdamWFeeds, accumulate, adamw, allFinite, assign, ema, globalNorm } from '../graph/ops/optim.ts';
import type { Graph } from '../graph/program.ts';
import { input, type Node, parameterLeaf, type Tensor } from '../graph/tensor.ts';
import type { Module, Parameter } from '../nn/module.ts';
import type { Parameters, Values } from '../runtime/index.ts';
import { Offload, type Staged } from './offload.ts';

export interface OptimizerOptions {
  /** Decoupled weight decay of matrices and kernels; vectors (norms, biases) have none. */
  readonly weightDecay: number;
  /** Gradients longer than this are scaled down to it; none are without. */
  readonly clip?: number;
  readonly beta1?: number;
  readonly beta2?: number;
  readonly eps?: number;
  /** Whether an exponential moving average of the weights is kept; true by default. */
  readonly average?: boolean;
  /** Whether moments wait in the host's memory ({@link Offload}), for {@link Optimizer.updatesInParts}; there are no averages then. */
  readonly offload?: boolean;
}

/** AdamW's two of a weight, of its shape. */
export interface Moments {
  readonly m: Tensor;
  readonly v: Tensor;
}

/** A weight that trains. */
export interface Slot extends Moments {
  readonly key: string;
  readonly parameter: Parameter;
  readonly average: Tensor | undefined;
}

/**
 * AdamW over a module's trainable parameters, with gradient clipping by global norm and an exponential moving
 * average of the weights, both optional. Its moments are persistent buffers beside the parameters. A step whose gradients are not all
 * finite changes nothing.
 */
export class Optimizer {
  /** What moments wait in, if not on the device. */
  readonly offload: Offload | undefined;
  private readonly slots: Slot[];
  private readonly options: OptimizerOptions;

  constructor(module: Module, options: OptimizerOptions) {
    this.options = options;
    const { average = !options.offload, offload } = options;
    this.slots = [...module.namedParameters()]
      .filter(([, parameter]) => parameter.trainable)
      .map(([key, parameter]) => {
        const { shape, dtype } = parameter.value;
        const leaf = (): Tensor => parameterLeaf(shape, dtype);
        return { key, parameter, m: leaf(), v: leaf(), average: average ? leaf() : undefined };
      });
    this.offload = offload ? new Offload(this.slots) : undefined;
  }

  /** The leaves to differentiate with respect to, in the order in which {@link updates} takes their gradients. */
  get weights(): Tensor[] {
    return this.slots.map(({ parameter }) => parameter.value);
  }

  /** Everything that a checkpoint must hold beside the weights, by key. */
  state(): Map<string, Tensor> {
    return new Map(
      this.slots.flatMap(({ key, m, v, average }): [string, Tensor][] => [
        [`m.${key}`, m],
        [`v.${key}`, v],
        ...(average ? [[`ema.${key}`, average] as [string, Tensor]] : []),
      ]),
    );
  }

  /** What is shipped of the trainable weights, by the module's own keys: the averages, or the weights where there are none. */
  averages(): Map<string, Tensor> {
    return new Map(this.slots.map(({ key, parameter, average }) => [key, average ?? parameter.value]));
  }

  /** Makes zeroed moments, and averages that start as the weights. */
  async create(parameters: Parameters): Promise<void> {
    for (const { parameter, m, v, average } of this.slots) {
      for (const moment of [m, v]) if (!this.offload?.has(moment)) parameters.add(moment);
      if (average) parameters.add(average, { data: await parameters.read(parameter.value) });
    }
    this.offload?.create(parameters);
  }

  /**
   * The nodes of one step, which read the feeds of {@link feeds}; and the gradients' norm before clipping, [1].
   *
   * @param grads of the {@link weights}, or sums of `count` gradients whose mean is meant
   */
  updates(grads: readonly Tensor[], count = 1): { nodes: Node[]; norm: Tensor } {
    const { norm, scale, ok } = this.factors(grads, count);
    const nodes = this.adamw(
      this.slots.map((slot) => ({ slot, on: slot })),
      grads,
      { scale, ok },
    );
    const pairs = this.slots.flatMap(({ parameter, average }) =>
      average ? [[average, parameter.value] as const] : [],
    );
    if (pairs.length) nodes.push(ema(input('decay', [1]), ok, pairs));
    return { norm, nodes };
  }

  /**
   * The same as graphs that follow each other: the first has the `norm` and what the others are fed besides, `scale` and `ok`; it
   * updates what has its moments on the device. The others are those of the parts, in whose buffers their moments then are.
   */
  updatesInParts(grads: readonly Tensor[], count: number, { parts }: Offload): { head: Graph; parts: Graph[] } {
    const outputs = this.factors(grads, count);
    const away = new Set(parts.flat().map(({ slot }) => slot));
    const resident = this.slots.filter((slot) => !away.has(slot)).map((slot) => ({ slot, on: slot }));
    const [scale, ok] = ['scale', 'ok'].map((name) => input(name, [1]));
    return {
      head: { outputs: { ...outputs }, updates: this.adamw(resident, grads, outputs) },
      parts: parts.map((part) => ({ outputs: {}, updates: this.adamw(part, grads, { scale, ok }) })),
    };
  }

  /** Of all gradients: their norm, what they are multiplied by, and whether they count; each [1]. */
  private factors(grads: readonly Tensor[], count: number): Record<'norm' | 'scale' | 'ok', Tensor> {
    const { clip = Infinity } = this.options;
    const sum = globalNorm(grads);
    const norm = affine(sum, 1 / count);
    const shrink = clip < Infinity ? minimum(1, div(clip, maximum(norm, 1e-12))) : full([1], 1, norm.dtype);
    return { norm, scale: affine(shrink, 1 / count), ok: mul(allFinite(grads), allFinite([sum])) };
  }

  /** @param grads of all weights */
  private adamw(
    staged: readonly Staged[],
    grads: readonly Tensor[],
    factors: Pick<AdamWFeeds, 'scale' | 'ok'>,
  ): Node[] {
    if (!staged.length) return [];
    const { weightDecay, beta1, beta2, eps } = this.options;
    const [lr, step] = ['lr', 'step'].map((name) => input(name, [1]));
    const groups = staged.map(({ slot, on: { m, v } }) => {
      const { value } = slot.parameter;
      const grad = grads[this.slots.indexOf(slot)];
      return { param: value, grad, m, v, weightDecay: value.rank > 1 ? weightDecay : 0 };
    });
    return [adamw({ lr, step, ...factors }, groups, { beta1, beta2, eps })];
  }

  /** What varies per step. `step` counts from 1; the average's memory grows with it, up to about 1,000 steps. */
  feeds(step: number, lr: number): Values {
    const decay = Float32Array.of(Math.min(0.999, (1 + step) / (10 + step)));
    const feeds = { lr: Float32Array.of(lr), step: Float32Array.of(step) };
    const { average, offload } = this.options;
    return average === false || offload ? feeds : { ...feeds, decay };
  }
}

/**
 * Sums of gradients over several batches, of which one step is made. The first batch of a step overwrites what the last step
 * left, so that nothing has to be cleared and a sum that was not finite goes away.
 */
export class GradientSum {
  /** In the order of the weights. */
  readonly totals: readonly Tensor[];

  constructor(weights: readonly Tensor[]) {
    this.totals = weights.map(({ shape, dtype }) => parameterLeaf(shape, dtype));
  }

  create(parameters: Parameters): void {
    for (const total of this.totals) parameters.add(total);
  }

  /** The nodes that add one batch's gradients, which read the feeds of {@link feeds}. */
  updates(grads: readonly Tensor[]): Node[] {
    const [first, later] = ['first', 'later'].map((name) => input(name, [1]));
    const pairs = this.totals.map((total, i) => [total, grads[i]] as const);
    return [assign(first, pairs), accumulate(later, pairs)];
  }

  /** @param batch number of the batch within its step */
  feeds(batch: number): Values {
    return { first: Float32Array.of(batch ? 0 : 1), later: Float32Array.of(batch ? 1 : 0) };
  }
}
