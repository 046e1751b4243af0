import type { TypedArray } from '../graph/dtype.ts';
import { inputNames } from '../graph/grad.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { Module } from '../nn/module.ts';
import type { Device, Parameters, Program, Values } from '../runtime/index.ts';
import type { Leaves } from './checkpoint.ts';
import { type Offload, OffloadedStep } from './offload.ts';
import { GradientSum, Optimizer, type OptimizerOptions } from './optimizer.ts';

/** The graph of one batch: what is reported, and the gradients by the learner's weights. */
export interface BatchGraph {
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** By the tensors of {@link Learner.weights}, in their order. */
  readonly gradients: readonly Tensor[];
}

/** A module that learns from sums of gradients over several batches. */
export class Learner {
  /** What a checkpoint holds: trained weights and the optimizer's state. */
  readonly leaves: Leaves;
  private readonly optimizer: Optimizer;

  /** @param module what of it trains is marked */
  constructor(module: Module, options: OptimizerOptions) {
    this.optimizer = new Optimizer(module, options);
    const trained = [...module.namedParameters()].filter(([, { trainable }]) => trainable);
    this.leaves = new Map([...trained.map(([key, { value }]) => [key, value] as const), ...this.optimizer.state()]);
  }

  /** The leaves to differentiate by. */
  get weights(): Tensor[] {
    return this.optimizer.weights;
  }

  /** Makes the optimizer's state beside the weights, for a run that begins. */
  create(parameters: Parameters): Promise<void> {
    return this.optimizer.create(parameters);
  }

  /** What is shipped of the trained weights, by the module's own keys. */
  averages(): Map<string, Tensor> {
    return this.optimizer.averages();
  }

  /** What of the optimizer's state is in the host's memory. */
  get offload(): Offload | undefined {
    return this.optimizer.offload;
  }

  private async compileStep(
    device: Device,
    parameters: Parameters,
    totals: readonly Tensor[],
    count: number,
  ): Promise<UpdateProgram> {
    const { optimizer, offload } = this;
    if (offload) return OffloadedStep.compile(device, parameters, optimizer, offload, totals, count);
    const { nodes, norm } = optimizer.updates(totals, count);
    return device.compile({ outputs: { norm }, updates: nodes }, { parameters });
  }

  /** @param accumulate batches a step, which is made of their mean */
  async compile(
    device: Device,
    parameters: Parameters,
    { outputs, gradients }: BatchGraph,
    accumulate: number,
  ): Promise<LearnerPrograms> {
    const read = inputNames([...Object.values(outputs), ...gradients]);
    const sum = new GradientSum(this.weights);
    sum.create(parameters);
    const batch = await device.compile({ outputs, updates: sum.updates(gradients) }, { parameters });
    try {
      const step = await this.compileStep(device, parameters, sum.totals, accumulate);
      return new LearnerPrograms(this.optimizer, sum, read, batch, step);
    } catch (error) {
      batch.dispose();
      throw error;
    }
  }
}

/** What makes a step of sums of gradients, and resolves to their `norm`. */
type UpdateProgram = Pick<Program, 'run' | 'peakBytes' | 'dispose'> | OffloadedStep;

/** The compiled graphs of a {@link Learner}. */
export class LearnerPrograms {
  private readonly optimizer: Optimizer;
  private readonly sum: GradientSum;
  private readonly read: ReadonlySet<string>;
  private readonly batch: Program;
  private readonly step: UpdateProgram;

  constructor(optimizer: Optimizer, sum: GradientSum, read: ReadonlySet<string>, batch: Program, step: UpdateProgram) {
    this.optimizer = optimizer;
    this.sum = sum;
    this.read = read;
    this.batch = batch;
    this.step = step;
  }

  /** Bytes of the programs beside the parameters. */
  get peakBytes(): number {
    return this.batch.peakBytes + this.step.peakBytes;
  }

  /**
   * Adds the gradients of batch number `k` of a step, from 0, and resolves to the graph's outputs. `feeds` may hold what the
   * graph does not read: which losses look at what is their own affair.
   */
  add(feeds: Values, k: number): Promise<Record<string, TypedArray>> {
    const read = Object.fromEntries(Object.entries(feeds).filter(([name]) => this.read.has(name)));
    return this.batch.run({ ...read, ...this.sum.feeds(k) });
  }

  /** Makes step number `step`, from 1, of what was added; resolves to the norm of the mean gradient. */
  async update(step: number, lr: number): Promise<number> {
    return Number((await this.step.run(this.optimizer.feeds(step, lr))).norm[0]);
  }

  dispose(): void {
    this.batch.dispose();
    this.step.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
