import { arrayOf, type TypedArray } from '../graph/dtype.ts';
import { parameterLeaf, type Tensor } from '../graph/tensor.ts';
import type { Device, Parameters, Program, Values } from '../runtime/index.ts';
import type { Store } from './checkpoint.ts';
import type { Moments, Optimizer, Slot } from './optimizer.ts';

/** A weight whose moments are elsewhere, and the buffers that they pass through. */
export interface Staged {
  readonly slot: Slot;
  readonly on: Moments;
}

/**
 * AdamW's moments of matrices and kernels in the host's memory. The device has one pair of buffers for each shape among them;
 * part k of an update takes the k-th weight of every shape. What vectors have is too little to be worth it.
 */
export class Offload implements Store {
  readonly parts: readonly (readonly Staged[])[];
  private readonly buffers: readonly Moments[];
  /** Values by the leaves that stand for them; zeros where there are none yet. */
  private readonly values = new Map<Tensor, TypedArray | undefined>();

  constructor(slots: readonly Slot[]) {
    const parts: Staged[][] = [];
    const shapes = new Map<string, { on: Moments; count: number }>();
    for (const slot of slots) {
      const { shape, dtype, rank } = slot.parameter.value;
      if (rank < 2) continue;
      const key = `${dtype} ${shape}`;
      const leaf = (): Tensor => parameterLeaf(shape, dtype);
      const known = shapes.get(key) ?? { on: { m: leaf(), v: leaf() }, count: 0 };
      shapes.set(key, known);
      if (known.count === parts.length) parts.push([]);
      parts[known.count++].push({ slot, on: known.on });
      for (const moment of [slot.m, slot.v]) this.values.set(moment, undefined);
    }
    this.parts = parts;
    this.buffers = [...shapes.values()].map(({ on }) => on);
  }

  has(leaf: Tensor): boolean {
    return this.values.has(leaf);
  }

  async read(leaf: Tensor): Promise<TypedArray> {
    return this.values.get(leaf) ?? arrayOf(leaf.dtype, leaf.size);
  }

  write(leaf: Tensor, values: TypedArray): void {
    this.values.set(leaf, values);
  }

  /** Bytes of all values. */
  get bytes(): number {
    return [...this.values.keys()].reduce(
      (sum, { size, dtype }) => sum + arrayOf(dtype, 0).BYTES_PER_ELEMENT * size,
      0,
    );
  }

  /** Makes the buffers that values pass through. */
  create(parameters: Parameters): void {
    for (const { m, v } of this.buffers) for (const leaf of [m, v]) parameters.add(leaf);
  }
}

/** An update whose moments are offloaded: the gradients' norm first, then part by part. The bits are those of one program. */
export class OffloadedStep {
  private readonly parameters: Parameters;
  private readonly offload: Offload;
  private readonly head: Program;
  /** Whether the head updates weights itself, and so is fed a rate. */
  private readonly updates: boolean;
  private readonly parts: readonly Program[];

  private constructor(
    parameters: Parameters,
    offload: Offload,
    [head, ...parts]: readonly Program[],
    { updates }: { readonly updates: boolean },
  ) {
    this.parameters = parameters;
    this.offload = offload;
    this.head = head;
    this.updates = updates;
    this.parts = parts;
  }

  /** @param grads sums of `count` gradients of all weights of the optimizer */
  static async compile(
    device: Device,
    parameters: Parameters,
    optimizer: Optimizer,
    offload: Offload,
    grads: readonly Tensor[],
    count: number,
  ): Promise<OffloadedStep> {
    const programs: Program[] = [];
    try {
      const { head, parts } = optimizer.updatesInParts(grads, count, offload);
      for (const graph of [head, ...parts]) programs.push(await device.compile(graph, { parameters }));
      return new OffloadedStep(parameters, offload, programs, { updates: head.updates!.length > 0 });
    } catch (error) {
      for (const program of programs) program.dispose();
      throw error;
    }
  }

  get peakBytes(): number {
    return [this.head, ...this.parts].reduce((sum, { peakBytes }) => sum + peakBytes, 0);
  }

  /** Resolves to the norm of the gradients. */
  async run(feeds: Values): Promise<{ norm: TypedArray }> {
    const { parameters, offload } = this;
    const { norm, scale, ok } = await this.head.run(this.updates ? feeds : {});
    // Where nothing is to change, nothing has to pass.
    if (!(ok[0] > 0)) return { norm };
    for (const [i, part] of offload.parts.entries()) {
      const moved = part.flatMap(({ slot, on }) => [[slot.m, on.m] as const, [slot.v, on.v] as const]);
      for (const [leaf, buffer] of moved) parameters.write(buffer, await offload.read(leaf));
      await this.parts[i].run({ ...feeds, scale, ok });
      for (const [leaf, buffer] of moved) offload.write(leaf, await parameters.read(buffer));
    }
    return { norm };
  }

  dispose(): void {
    this.head.dispose();
    for (const program of this.parts) program.dispose();
  }
}
