import { monitorEventLoopDelay } from 'node:perf_hooks';
import type { Device, RunOptions } from '../runtime/index.ts';

/** One step of a model, timed. */
export interface ModelTimes {
  readonly name: string;
  /** Seconds of each run; one before them, which packs the weights, is left out. */
  readonly seconds: readonly number[];
  /** Operations of a run, as workOf of work.ts counts them; undefined where the graph is not at hand. */
  readonly flops?: number;
}

export interface ModelRun {
  readonly times: readonly ModelTimes[];
  /** 99th percentile, in milliseconds, by how much a timer due every millisecond came late while programs ran. */
  readonly loopDelay: number;
}

export interface ModelBench {
  readonly name: string;
  readonly describe: string;
  /** It takes long, or much of a machine: it runs only where it is named. */
  readonly onRequest?: boolean;
  run(device: Device, options: ModelOptions): Promise<ModelRun>;
}

export interface ModelOptions extends RunOptions {
  /** How often each step is timed. */
  readonly runs: number;
}

/** Times `steps` one after another, a round to warm up and `runs` more. */
export async function timed(
  steps: Record<string, () => Promise<unknown>>,
  { runs, onProgress }: ModelOptions,
): Promise<{ seconds: Record<string, number[]>; loopDelay: number }> {
  const names = Object.keys(steps);
  const seconds = Object.fromEntries(names.map((name) => [name, [] as number[]]));
  const delay = monitorEventLoopDelay({ resolution: 1 });
  for (let round = 0; round <= runs; round++) {
    for (const [i, name] of names.entries()) {
      onProgress?.((round + i / names.length) / (runs + 1));
      const start = performance.now();
      await steps[name]();
      if (round) seconds[name].push((performance.now() - start) / 1000);
    }
    delay.enable();
  }
  delay.disable();
  return { seconds, loopDelay: delay.percentile(99) / 1e6 };
}
