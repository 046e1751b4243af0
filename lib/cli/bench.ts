import type { CommandModule } from 'yargs';
import type { ModelBench } from '../bench/model_bench.ts';
import { modelBenches } from '../bench/models.ts';
import { families, type OpBench, opBenches } from '../bench/ops.ts';
import { median, TimedOp } from '../bench/timing.ts';
import { type Device, openDevice } from '../runtime/index.ts';
import { UsageError } from './failure.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions } from './options.ts';
import { Progress } from './progress.ts';

interface Args {
  name?: string;
  device: string;
  threads?: number;
  json: boolean;
}

/** One line of the table; figures that do not apply are left out. */
interface Row {
  readonly name: string;
  /** Median of the runs. */
  readonly seconds: number;
  readonly runs: readonly number[];
  /** Counted as for direct convolutions, whichever way they are computed. */
  readonly gflops?: number;
  /** Of operands read and results written. */
  readonly gigabytesPerSecond?: number;
  readonly loopDelayMs?: number;
  readonly peakRssBytes?: number;
}

/** The model that is measured when none is named: the other one takes minutes, and most of a machine's memory. */
const usual = 'face-256';
const opRuns = 5;
const modelRuns = 3;

const models = modelBenches.map(({ name, describe }) => `${name} (${describe})`).join(', ');

export const benchCommand: CommandModule<object, Args> = {
  command: 'bench [name]',
  describe: 'measure how fast this machine is: operators at the shapes of Stable Diffusion 2.1, and models',
  builder: (yargs) =>
    yargs
      .positional('name', {
        describe: `${families.join(', ')}, part of an operator's name, or a model: ${models}; all operators and ${usual} by default`,
        type: 'string',
      })
      .options({
        ...deviceOptions,
        json: { describe: 'print one JSON object a line of the table', type: 'boolean', default: false },
      }),
  handler: bench,
};

async function bench({ name, device: kind, threads, json }: Args): Promise<void> {
  const ops = opBenches.filter((op) => name === undefined || op.family === name || op.name.includes(name));
  const chosen = modelBenches.filter((model) => model.name === (name ?? usual));
  if (!ops.length && !chosen.length) {
    const known = [...families, ...modelBenches.map((model) => model.name)].join(', ');
    throw new UsageError(`nothing to measure is named ${name}: expected ${known}, or part of an operator's name`);
  }
  using device = await openDevice(kind, { threads });
  const progress = new Progress(ops.length + chosen.length, 'measured');
  const print = (row: Row): void => {
    progress.clear();
    console.log(json ? JSON.stringify({ ...row, device: device.kind, threads: device.threads }) : line(row));
  };
  if (!json) console.log(`${device.kind}, ${device.threads} threads\n${heading}`);
  for (const [done, op] of ops.entries()) {
    progress.update(done, op.name);
    print(await measureOp(device, op));
  }
  for (const [done, model] of chosen.entries()) {
    const onProgress = (fraction: number): void => progress.update(ops.length + done + fraction, model.name);
    for (const row of await measureModel(device, model, onProgress)) print(row);
  }
}

async function measureOp(device: Device, op: OpBench): Promise<Row> {
  using timed = await TimedOp.prepare(device, op);
  const runs: number[] = [];
  // The first one packs the weights.
  for (let i = 0; i <= opRuns; i++) runs.push((await timed.run({ signal: interrupted })).seconds);
  const seconds = median(runs.slice(1));
  const { flops, bytes } = timed.work;
  return {
    name: op.name,
    seconds,
    runs: runs.slice(1),
    ...(flops && { gflops: flops / seconds / 1e9 }),
    ...(op.family === 'memory' && { gigabytesPerSecond: bytes / seconds / 1e9 }),
  };
}

async function measureModel(device: Device, model: ModelBench, onProgress: (f: number) => void): Promise<Row[]> {
  const { times, loopDelay } = await model.run(device, { runs: modelRuns, signal: interrupted, onProgress });
  const peakRssBytes = process.resourceUsage().maxRSS * 1024;
  const rows = times.map(({ name, seconds: runs, flops }): Row => {
    const seconds = median(runs);
    return { name, seconds, runs, ...(flops && { gflops: flops / seconds / 1e9 }) };
  });
  const whole = times[0].seconds.map((_, i) => times.reduce((sum, { seconds }) => sum + seconds[i], 0));
  const total: Row = { name: model.name, seconds: median(whole), runs: whole, loopDelayMs: loopDelay, peakRssBytes };
  return times.length > 1 ? [...rows, total] : [{ ...rows[0], ...total }];
}

const columns = ['ms', 'GFLOP/s', 'GB/s', 'loop delay ms', 'peak memory GB'] as const;
const heading = `${'operator or model'.padEnd(44)}${columns.map((title) => title.padStart(16)).join('')}`;

function line({ name, seconds, gflops, gigabytesPerSecond, loopDelayMs, peakRssBytes }: Row): string {
  const figures = [seconds * 1000, gflops, gigabytesPerSecond, loopDelayMs, peakRssBytes && peakRssBytes / 1e9];
  const cells = figures.map((figure) => (figure === undefined ? '' : figure.toPrecision(4)).padStart(16));
  return `${name.padEnd(44)}${cells.join('')}`.trimEnd();
}
