import { affine, div, full, maximum, minimum, mul } from '../graph/ops/elementwise.ts';
import { accumulate, adamw, allFinite, assign, ema, globalNorm } from '../graph/ops/optim.ts';
import { input, type Node, parameterLeaf, type Tensor } from '../graph/tensor.ts';
import type { Module, Parameter } from '../nn/module.ts';
import type { Parameters, Values } from '../runtime/index.ts';

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
}

interface Slot {
  readonly key: string;
  readonly parameter: Parameter;
  readonly m: Tensor;
  readonly v: Tensor;
  readonly average: Tensor | undefined;
}

/**
 * AdamW over a module's trainable parameters, with gradient clipping by global norm and an exponential moving
 * average of the weights, both optional. Its moments are persistent buffers beside the parameters. A step whose gradients are not all
 * finite changes nothing.
 */
export class Optimizer {
  private readonly slots: Slot[];
  private readonly options: OptimizerOptions;

  constructor(module: Module, options: OptimizerOptions) {
    this.options = options;
    const { average = true } = options;
    this.slots = [...module.namedParameters()]
      .filter(([, parameter]) => parameter.trainable)
      .map(([key, parameter]) => {
        const { shape, dtype } = parameter.value;
        const leaf = (): Tensor => parameterLeaf(shape, dtype);
        return { key, parameter, m: leaf(), v: leaf(), average: average ? leaf() : undefined };
      });
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
      parameters.add(m);
      parameters.add(v);
      if (average) parameters.add(average, { data: await parameters.read(parameter.value) });
    }
  }

  /**
   * The nodes of one step, which read the feeds of {@link feeds}; and the gradients' norm before clipping, [1].
   *
   * @param grads of the {@link weights}, or sums of `count` gradients whose mean is meant
   */
  updates(grads: readonly Tensor[], count = 1): { nodes: Node[]; norm: Tensor } {
    const { weightDecay, clip = Infinity, beta1, beta2, eps } = this.options;
    const [lr, step] = ['lr', 'step'].map((name) => input(name, [1]));
    const sum = globalNorm(grads);
    const norm = affine(sum, 1 / count);
    const shrink = clip < Infinity ? minimum(1, div(clip, maximum(norm, 1e-12))) : full([1], 1, norm.dtype);
    const ok = mul(allFinite(grads), allFinite([sum]));
    const groups = this.slots.map(({ parameter: { value }, m, v }, i) => ({
      param: value,
      grad: grads[i],
      m,
      v,
      weightDecay: value.rank > 1 ? weightDecay : 0,
    }));
    const nodes = [adamw({ lr, step, scale: affine(shrink, 1 / count), ok }, groups, { beta1, beta2, eps })];
    const pairs = this.slots.flatMap(({ parameter, average }) =>
      average ? [[average, parameter.value] as const] : [],
    );
    if (pairs.length) nodes.push(ema(input('decay', [1]), ok, pairs));
    return { norm, nodes };
  }

  /** What varies per step. `step` counts from 1; the average's memory grows with it, up to about 1,000 steps. */
  feeds(step: number, lr: number): Values {
    const decay = Float32Array.of(Math.min(0.999, (1 + step) / (10 + step)));
    const feeds = { lr: Float32Array.of(lr), step: Float32Array.of(step) };
    return this.options.average === false ? feeds : { ...feeds, decay };
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
