import { div, maximum, minimum, mul } from '../graph/ops/elementwise.ts';
import { adamw, allFinite, ema, globalNorm } from '../graph/ops/optim.ts';
import { input, type Node, parameterLeaf, type Tensor } from '../graph/tensor.ts';
import type { Module, Parameter } from '../nn/module.ts';
import type { Parameters, Values } from '../runtime/index.ts';

export interface OptimizerOptions {
  /** Decoupled weight decay of matrices and kernels; vectors (norms, biases) have none. */
  readonly weightDecay: number;
  /** Gradients longer than this are scaled down to it. */
  readonly clip: number;
  readonly beta1?: number;
  readonly beta2?: number;
}

interface Slot {
  readonly key: string;
  readonly parameter: Parameter;
  readonly m: Tensor;
  readonly v: Tensor;
  readonly average: Tensor;
}

/**
 * AdamW over a module's trainable parameters, with gradient clipping by global norm and an exponential moving
 * average of the weights. Its moments are persistent buffers beside the parameters. A step whose gradients are not all
 * finite changes nothing.
 */
export class Optimizer {
  private readonly slots: Slot[];
  private readonly options: OptimizerOptions;

  constructor(module: Module, options: OptimizerOptions) {
    this.options = options;
    this.slots = [...module.namedParameters()]
      .filter(([, parameter]) => parameter.trainable)
      .map(([key, parameter]) => {
        const { shape, dtype } = parameter.value;
        const leaf = (): Tensor => parameterLeaf(shape, dtype);
        return { key, parameter, m: leaf(), v: leaf(), average: leaf() };
      });
  }

  /** The leaves to differentiate with respect to, in the order in which {@link updates} takes their gradients. */
  get weights(): Tensor[] {
    return this.slots.map(({ parameter }) => parameter.value);
  }

  /** Everything that a checkpoint must hold beside the weights, by key. */
  state(): Map<string, Tensor> {
    return new Map(
      this.slots.flatMap(({ key, m, v, average }) => [
        [`m.${key}`, m],
        [`v.${key}`, v],
        [`ema.${key}`, average],
      ]),
    );
  }

  /** The averaged weights by the module's own keys: what is shipped. */
  averages(): Map<string, Tensor> {
    return new Map(this.slots.map(({ key, average }) => [key, average]));
  }

  /** Makes zeroed moments, and averages that start as the weights. */
  async create(parameters: Parameters): Promise<void> {
    for (const { parameter, m, v, average } of this.slots) {
      parameters.add(m);
      parameters.add(v);
      parameters.add(average, { data: await parameters.read(parameter.value) });
    }
  }

  /** The nodes of one step, which read the feeds of {@link feeds}; and the gradients' norm before clipping, [1]. */
  updates(grads: readonly Tensor[]): { nodes: Node[]; norm: Tensor } {
    const [lr, step, decay] = ['lr', 'step', 'decay'].map((name) => input(name, [1]));
    const norm = globalNorm(grads);
    const scale = minimum(1, div(this.options.clip, maximum(norm, 1e-12)));
    const ok = mul(allFinite(grads), allFinite([norm]));
    const groups = this.slots.map(({ parameter: { value }, m, v }, i) => ({
      param: value,
      grad: grads[i],
      m,
      v,
      weightDecay: value.rank > 1 ? this.options.weightDecay : 0,
    }));
    const { beta1, beta2 } = this.options;
    return {
      norm,
      nodes: [
        adamw({ lr, step, scale, ok }, groups, { beta1, beta2 }),
        ema(
          decay,
          ok,
          this.slots.map(({ parameter, average }) => [average, parameter.value] as const),
        ),
      ],
    };
  }

  /** What varies per step. `step` counts from 1; the average's memory grows with it, up to about 1,000 steps. */
  feeds(step: number, lr: number): Values {
    return {
      lr: Float32Array.of(lr),
      step: Float32Array.of(step),
      decay: Float32Array.of(Math.min(0.999, (1 + step) / (10 + step))),
    };
  }
}
