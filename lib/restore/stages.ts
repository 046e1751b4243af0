import { freemem } from 'node:os';
import type { TypedArray } from '../graph/dtype.ts';
import { fuse } from '../graph/fuse.ts';
import { lower } from '../graph/program.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { Device, Parameters, ParametersOptions, Program, RunOptions, Values } from '../runtime/index.ts';

type Trace = () => Record<string, Tensor>;

/** A program with the runs that it has before it. */
interface Kept {
  readonly program: Promise<Program>;
  /** Bytes that it holds besides parameters, once it is compiled. */
  bytes: number;
  busy: number;
}

/** Bytes of programs that are kept whatever the budget: compiling one again packs all of its weights again. */
const leastKept = 2 ** 30;

/** Of a device that cannot be asked how much memory is free. */
const unknownMemory = 2 ** 33;

/**
 * The programs that a model consists of, by name and shape. Each is compiled when it is first needed, and kept as long as all
 * together fit the budget, or {@link leastKept}: what was used longest ago goes first.
 */
export class Stages {
  readonly device: Device;
  readonly parameters: Parameters;
  readonly #programs = new Map<string, Kept>();
  readonly #fits = new Map<string, boolean>();
  #budget: number | undefined;

  /** @param memory bytes to keep to besides weights; half of what is free, less the weights, when left out */
  constructor(device: Device, memory?: number, options: ParametersOptions = {}) {
    this.device = device;
    this.parameters = device.parameters(options);
    this.#budget = memory;
  }

  /** Bytes that programs should keep to besides weights, alone and together. */
  get budget(): number {
    // Frozen weights come into memory at their first use only, so they are not among what is taken yet.
    const free = (): number => (process.availableMemory?.() ?? freemem()) - this.parameters.bytes;
    this.#budget ??= this.device.kind === 'cpu' ? Math.max(0, free() / 2) : unknownMemory;
    return this.#budget;
  }

  /** Whether the program `key` is planned to need no more than the budget. The answer stays what it was. */
  fits(key: string, trace: Trace): boolean {
    let fits = this.#fits.get(key);
    if (fits === undefined) {
      fits = lower(fuse({ outputs: trace() })).arenaBytes <= this.budget;
      this.#fits.set(key, fits);
    }
    return fits;
  }

  /** Runs the program `key`, which computes what `trace` returns. */
  async run(key: string, trace: Trace, feeds: Values, options: RunOptions = {}): Promise<Record<string, TypedArray>> {
    const kept = this.#programs.get(key) ?? this.#compile(trace);
    // Last in the map is what was used last.
    this.#programs.delete(key);
    this.#programs.set(key, kept);
    kept.busy++;
    try {
      const program = await kept.program;
      kept.bytes = program.peakBytes;
      this.#evict();
      return await program.run(feeds, options);
    } finally {
      kept.busy--;
    }
  }

  #compile(trace: Trace): Kept {
    const program = this.device.compile({ outputs: trace() }, { parameters: this.parameters });
    return { program, bytes: 0, busy: 0 };
  }

  /** Lets go of programs that are not running until the rest fits. */
  #evict(): void {
    const most = Math.max(this.budget, leastKept);
    let held = 0;
    for (const { bytes } of this.#programs.values()) held += bytes;
    for (const [key, kept] of this.#programs) {
      if (held <= most) return;
      if (kept.busy) continue;
      this.#programs.delete(key);
      held -= kept.bytes;
      release(kept);
    }
  }

  /** Frees programs and parameters; runs under way reject. Safe to call twice. */
  dispose(): void {
    for (const kept of this.#programs.values()) release(kept);
    this.#programs.clear();
    this.parameters.dispose();
  }
}

function release({ program }: Kept): void {
  program.then(
    (compiled) => compiled.dispose(),
    () => {},
  );
}
