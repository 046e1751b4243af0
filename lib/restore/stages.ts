import type { TypedArray } from '../graph/dtype.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { Device, Parameters, Program, RunOptions, Values } from '../runtime/index.ts';

/** The programs that a model consists of, by name and shape. Each is compiled when it is first needed, and then kept. */
export class Stages {
  readonly device: Device;
  readonly parameters: Parameters;
  readonly #programs = new Map<string, Promise<Program>>();

  constructor(device: Device) {
    this.device = device;
    this.parameters = device.parameters();
  }

  /** Runs the program `key`, which computes what `trace` returns when it is called for the first time. */
  async run(
    key: string,
    trace: () => Record<string, Tensor>,
    feeds: Values,
    options: RunOptions = {},
  ): Promise<Record<string, TypedArray>> {
    let program = this.#programs.get(key);
    if (!program) {
      program = this.device.compile({ outputs: trace() }, { parameters: this.parameters });
      this.#programs.set(key, program);
    }
    return (await program).run(feeds, options);
  }

  /** Frees programs and parameters; runs under way reject. Safe to call twice. */
  dispose(): void {
    for (const program of this.#programs.values()) {
      program.then(
        (compiled) => compiled.dispose(),
        () => {},
      );
    }
    this.#programs.clear();
    this.parameters.dispose();
  }
}
