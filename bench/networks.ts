// Whole networks beside PyTorch: each side in a process of its own, one at a time because of their memory, in turns.
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { median } from '../lib/bench/timing.ts';
import { type Answer, limitOf, openTorch, type Peer, Refused } from './peers.ts';

const turns = 2;
/** Timings that PyTorch gives a turn; our command line decides on ours. */
const torchRuns = 2;

export interface NetworkResult {
  readonly bench: 'network';
  readonly name: string;
  readonly threads: number;
  /** Median seconds. */
  readonly ours: number;
  readonly torch?: number;
  readonly flops?: number;
  /** GFLOP/s of the machine's multiply-adds, taken between the processes; the best. */
  readonly limit: number;
  /** Of the process, at its end. */
  readonly peakRssBytes?: number;
  readonly torchPeakRssBytes?: number;
  /** 99th percentile by which a timer came late while programs ran, in milliseconds. */
  readonly loopDelayMs?: number;
}

export interface OpeningResult {
  readonly bench: 'opening';
  readonly threads: number;
  readonly bytes: number;
  /** Seconds until the first result of the UNet: header, weights, compilation, run; and of the run that follows. */
  readonly first: number;
  readonly second: number;
}

/** A line of `refl-native bench --json`. */
interface Line {
  readonly name: string;
  readonly seconds: number;
  readonly runs: number[];
  readonly gflops?: number;
  readonly loopDelayMs?: number;
  readonly peakRssBytes?: number;
}

/** What PyTorch answers: seconds of each run. */
interface Timed extends Answer {
  readonly seconds: number[];
  readonly peakRss: number;
}

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url));

/** Runs a script of ours in a process of its own, and returns the lines it printed. */
async function child<T>(script: string, ...args: string[]): Promise<T[]> {
  const { stdout } = await promisify(execFile)(process.execPath, ['--import', 'tsx', path(script), ...args]);
  return stdout
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));
}

/** What PyTorch has beside the lines of a model: its name for the network there, and the type that it computes in. */
const beside: Readonly<Record<string, Readonly<Record<string, readonly [network: string, dtype: string]>>>> = {
  sd21: {
    'vae encode 512': ['encode', 'float32'],
    'unet 64': ['unet', 'float32'],
    'vae decode 512': ['decode', 'float32'],
  },
  ...Object.fromEntries(
    ['float32', 'bfloat16'].flatMap((dtype) =>
      Object.entries({ 'osediff-face': 'osediff', 'diffbir-v1': 'diffbir', 'vit-h-14': 'vit' }).map(
        ([name, network]) => [`${name}-${dtype}`, { [`${name}-${dtype}`]: [network, dtype] as const }],
      ),
    ),
  ),
};

/** Measures a model of lib/bench/models.ts, beside PyTorch where that has the same. `say` is told who runs. */
export async function measureNetwork(
  model: string,
  threads: number,
  peak: Peer,
  say: (what: string) => void,
): Promise<NetworkResult[]> {
  const ours = new Map<string, Line[]>();
  const torch = new Map<string, number[]>();
  const limits: number[] = [];
  let torchPeak = 0;
  for (let turn = 0; turn < turns; turn++) {
    say(`${model}, turn ${turn + 1} of ${turns}: ours`);
    for (const line of await child<Line>('../lib/cli/main.ts', 'bench', model, '--json', '--threads', `${threads}`)) {
      ours.set(line.name, [...(ours.get(line.name) ?? []), line]);
    }
    limits.push(await limitOf(peak, 'fma', threads));
    if (!beside[model]) continue;
    say(`${model}, turn ${turn + 1} of ${turns}: PyTorch`);
    const peer = openTorch(threads);
    try {
      for (const [name, [network, dtype]] of Object.entries(beside[model])) {
        const { seconds, peakRss } = await peer.ask<Timed>('network', network, dtype, torchRuns);
        torch.set(name, [...(torch.get(name) ?? []), ...seconds]);
        torchPeak = Math.max(torchPeak, peakRss);
      }
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      say(`${model}: ${error.message}`);
    } finally {
      await peer.close();
    }
    limits.push(await limitOf(peak, 'fma', threads));
  }
  const theirs = new Map([...torch].map(([name, seconds]) => [name, median(seconds)]));
  if (theirs.size)
    theirs.set(
      model,
      [...theirs.values()].reduce((a, b) => a + b),
    );
  return [...ours].map(([name, lines]) => ({
    bench: 'network',
    name,
    threads,
    ours: median(lines.flatMap(({ runs }) => runs)),
    torch: theirs.get(name),
    flops: lines[0].gflops && lines[0].gflops * lines[0].seconds * 1e9,
    limit: Math.max(...limits),
    peakRssBytes: largest(lines, 'peakRssBytes'),
    torchPeakRssBytes: name === model && torchPeak ? torchPeak : undefined,
    loopDelayMs: largest(lines, 'loopDelayMs'),
  }));
}

function largest(lines: readonly Line[], key: 'peakRssBytes' | 'loopDelayMs'): number | undefined {
  const values = lines.flatMap((line) => line[key] ?? []);
  return values.length ? Math.max(...values) : undefined;
}

/** Opens the UNet's 3.4 GB from a file in the page cache. */
export async function measureOpening(threads: number): Promise<OpeningResult> {
  const folder = await mkdtemp(join(tmpdir(), 'refl-bench-'));
  try {
    const file = join(folder, 'unet.safetensors');
    await child('opening.ts', 'write', file, `${threads}`);
    const timings: Omit<OpeningResult, 'bench' | 'threads'>[] = [];
    for (let turn = 0; turn < 3; turn++)
      timings.push(...(await child<OpeningResult>('opening.ts', 'open', file, `${threads}`)));
    const middle = (key: 'first' | 'second'): number => median(timings.map((timing) => timing[key]));
    return { bench: 'opening', threads, bytes: timings[0].bytes, first: middle('first'), second: middle('second') };
  } finally {
    await rm(folder, { recursive: true });
  }
}
