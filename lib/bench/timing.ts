import type { TypedArray } from '../graph/dtype.ts';
import { reshape, slice } from '../graph/ops/layout.ts';
import { parameterLeaf, type Tensor } from '../graph/tensor.ts';
import type { Device, Parameters, Program, RunOptions } from '../runtime/index.ts';
import type { OpBench } from './ops.ts';
import { type Work, workOf } from './work.ts';

/**
 * Fills `data` with the numbers of tensor `tensor`, hashed, from -0.5 to 0.5: the peers of bench/ make the same, so
 * results can be compared.
 */
export function fill(data: Float32Array, tensor: number): Float32Array {
  const offset = Math.imul(tensor, 0x632be5ab);
  for (let i = 0; i < data.length; i++) {
    let h = Math.imul((i + offset) | 0, 0x9e3779b1);
    h = Math.imul(h ^ (h >>> 15), 0x85ebca77);
    data[i] = ((h ^ (h >>> 13)) >>> 8) / 2 ** 24 - 0.5;
  }
  return data;
}

/** The middle of `values`; the mean of the two middle ones where there is an even number of them. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** How many nodes make a run last about 50 ms, judged by two ordinary cores; a run's fixed cost is then lost in it. */
function copiesFor({ flops, bytes }: Work): number {
  return Math.ceil(Math.min(64, 0.05 / (flops / 2e11 + bytes / 2e10)));
}

/**
 * An operator's program, ready to be timed: as many equal nodes as make a run long, reading operands that stay on the
 * device (so nothing is fed), each giving one number of its result.
 */
export class TimedOp {
  readonly work: Work;
  readonly copies: number;
  /** Bytes that the program needs beside its operands and packed weights. */
  readonly peakBytes: number;
  private readonly program: Program;
  private readonly parameters: Parameters;

  private constructor(work: Work, copies: number, program: Program, parameters: Parameters) {
    this.work = work;
    this.copies = copies;
    this.program = program;
    this.parameters = parameters;
    this.peakBytes = program.peakBytes;
  }

  static async prepare(device: Device, op: OpBench): Promise<TimedOp> {
    const leaves = op.operands.map(({ shape }) => parameterLeaf(shape, 'f32'));
    const work = workOf([op.build(...leaves)]);
    const copies = copiesFor(work);
    const outputs: Record<string, Tensor> = {};
    for (let i = 0; i < copies; i++) {
      const flat = reshape(op.build(...leaves), [-1]);
      outputs[`first${i}`] = slice(flat, [0], [1]);
      if (i === 0) outputs.last = slice(flat, [flat.size - 1], [1]);
    }
    const parameters = device.parameters();
    try {
      leaves.forEach((leaf, i) => {
        parameters.add(leaf, { frozen: op.operands[i].frozen, data: fill(new Float32Array(leaf.size), i) });
      });
      return new TimedOp(work, copies, await device.compile({ outputs }, { parameters }), parameters);
    } catch (error) {
      parameters.dispose();
      throw error;
    }
  }

  /** Runs once: seconds of one node, and the first and last number of its result. */
  async run(options?: RunOptions): Promise<{ seconds: number; first: number; last: number }> {
    const start = performance.now();
    const { first0, last } = (await this.program.run({}, options)) as Record<string, TypedArray>;
    return { seconds: (performance.now() - start) / 1000 / this.copies, first: first0[0], last: last[0] };
  }

  dispose(): void {
    this.program.dispose();
    this.parameters.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
