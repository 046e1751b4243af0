import { ReflError } from '../errors.ts';
import { randomNormal } from '../graph/ops/random.ts';
import { input, type Shape, sizeOf } from '../graph/tensor.ts';
import type { Device, Program } from '../runtime/index.ts';
import { weightedSum } from './denoise.ts';
import type { Step } from './steps.ts';

/** A tensor's values, row-major. */
type Latents = Float32Array;

export interface SamplingOptions {
  readonly steps: readonly Step[];
  /** The state to begin with: noise, or a condition that was noised. */
  readonly start: Latents;
  /** The network: what it predicts of the state `x` at a step, guidance included. */
  readonly predict: (x: Latents, step: Step, i: number) => Promise<Latents>;
  /** Normal noise for the i-th step; asked only of steps that add some. */
  readonly noise: (i: number) => Promise<Latents>;
  /** Corrects the clean estimate of the i-th step before the next state is made of it. */
  readonly correct?: (clean: Latents, step: Step, i: number) => Promise<Latents>;
  /** Called after each step with the state it led to. */
  readonly onStep?: (i: number, x: Latents) => void;
}

/** Walks the steps of any sampler for latents of one shape, on a device; the programs are compiled once. */
export class Sampling {
  private readonly clean: Program;
  private readonly next: Program;
  private readonly zeros: Latents;

  private constructor(clean: Program, next: Program, size: number) {
    this.clean = clean;
    this.next = next;
    this.zeros = new Float32Array(size);
  }

  static async create(device: Device, shape: Shape): Promise<Sampling> {
    const sumOf = (names: readonly string[]): Promise<Program> => {
      const weights = input('weights', [names.length]);
      const y = weightedSum(
        weights,
        names.map((name) => input(name, shape)),
      );
      return device.compile({ outputs: { y } });
    };
    const clean = await sumOf(['x', 'output']);
    try {
      return new Sampling(clean, await sumOf(['x', 'clean', 'noise', 'before', 'earlier']), sizeOf(shape));
    } catch (error) {
      clean.dispose();
      throw error;
    }
  }

  /** Bytes of its programs. */
  get peakBytes(): number {
    return this.clean.peakBytes + this.next.peakBytes;
  }

  /** Resolves to the state after the last step. Rejects with ERR_SHAPE if `start` has another size. */
  async run({ steps, start, predict, noise, correct, onStep }: SamplingOptions): Promise<Latents> {
    if (start.length !== this.zeros.length) {
      throw new ReflError(
        'ERR_SHAPE',
        `sampling was made for ${this.zeros.length} numbers, started with ${start.length}`,
      );
    }
    let x = start;
    let [before, earlier] = [this.zeros, this.zeros];
    for (const [i, step] of steps.entries()) {
      const output = await predict(x, step, i);
      let clean = await compute(this.clean, { weights: Float32Array.from(step.clean), x, output });
      if (correct) clean = await correct(clean, step, i);
      x = await compute(this.next, {
        weights: Float32Array.from(step.next),
        x,
        clean,
        noise: step.next[2] ? await noise(i) : this.zeros,
        before,
        earlier,
      });
      [before, earlier] = [clean, before];
      onStep?.(i, x);
    }
    return x;
  }

  dispose(): void {
    this.clean.dispose();
    this.next.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const compute = async (program: Program, feeds: Record<string, Latents>): Promise<Latents> =>
  (await program.run(feeds)).y as Latents;

/** Normal noise of one shape by Philox: the same seed and index give the same bits on every device. */
export class NoiseSource {
  private readonly program: Program;

  private constructor(program: Program) {
    this.program = program;
  }

  static async create(device: Device, shape: Shape): Promise<NoiseSource> {
    const y = randomNormal(input('state', [4], 'i32'), shape);
    return new NoiseSource(await device.compile({ outputs: { y } }));
  }

  /** Bytes of its program. */
  get peakBytes(): number {
    return this.program.peakBytes;
  }

  /** The `index`-th noise of `seed`, 0 or more; a sampler's start and its steps take one index each. */
  async draw(seed: bigint, index: number): Promise<Latents> {
    const words = new Int32Array(new BigInt64Array([seed]).buffer);
    const { y } = await this.program.run({ state: Int32Array.of(words[0], words[1], index, 0) });
    return y as Latents;
  }

  dispose(): void {
    this.program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
