import { spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import * as assert from 'uvu/assert';
import { add } from '../../lib/graph/ops/elementwise.ts';
import { matmul } from '../../lib/graph/ops/matmul.ts';
import { constant, input, scope, type Tensor } from '../../lib/graph/tensor.ts';
import { native } from '../../lib/runtime/index.ts';

const SIDE = 512;
const identity = Float32Array.from({ length: SIDE * SIDE }, (_, i) => (i % (SIDE + 1) === 0 ? 1 : 0));

/** x + steps for a square x of side 512, by a product with the identity in each: milliseconds a step, each a segment. */
export function countUp(x: Tensor, steps: number): Tensor {
  const one = constant(identity, [SIDE, SIDE], 'f32');
  return Array.from({ length: steps }).reduce<Tensor>((t, _, i) => scope(`step${i}`, () => add(matmul(t, one), 1)), x);
}

/** A program that lasts for `steps` times a millisecond or a few. */
export const longRun = (steps: number): { outputs: { y: Tensor } } => ({
  outputs: { y: countUp(input('x', [SIDE, SIDE]), steps) },
});

export const longFeeds = { x: new Float32Array(SIDE * SIDE) };

/** What `fn` throws or rejects with; fails when it does neither. */
export async function errorOf(fn: () => unknown): Promise<Error & { code?: string }> {
  try {
    await fn();
  } catch (error) {
    return error as Error;
  }
  throw new Error('nothing was thrown');
}

export const codeOf = async (fn: () => unknown): Promise<string | undefined> => (await errorOf(fn)).code;

/** Calls `fn` and returns the bytes of every array that the addon copies meanwhile as a feed or as a part of one. */
export async function copiedBytes(fn: () => Promise<unknown>): Promise<number[]> {
  const addon = native();
  const { run, fillFeed } = addon;
  const bytes: number[] = [];
  addon.run = (device, program, feeds, ...rest) => {
    for (const feed of feeds) if (typeof feed !== 'number') bytes.push(feed.byteLength);
    return run(device, program, feeds, ...rest);
  };
  addon.fillFeed = (feed, part) => {
    bytes.push(part.byteLength);
    fillFeed(feed, part);
  };
  try {
    await fn();
    return bytes;
  } finally {
    Object.assign(addon, { run, fillFeed });
  }
}

export interface Ended {
  code: number | null;
  signal: string | null;
  output: string;
  /** Seconds from the last output to the end. */
  lingered: number;
}

/** Runs test/runtime/children/NAME.ts in a process of its own, and kills it after a minute. */
export function child(name: string, ...args: string[]): Promise<Ended> {
  const file = fileURLToPath(new URL(`../runtime/children/${name}.ts`, import.meta.url));
  const started = spawn(process.execPath, ['--expose-gc', '--import', 'tsx', file, ...args], { timeout: 60_000 });
  let output = '';
  let last = performance.now();
  for (const stream of [started.stdout, started.stderr]) {
    stream.setEncoding('utf8').on('data', (text) => {
      output += text;
      last = performance.now();
    });
  }
  return new Promise((resolve) => {
    started.on('close', (code, signal) =>
      resolve({ code, signal, output, lingered: (performance.now() - last) / 1000 }),
    );
  });
}

/** Asserts that a child ended by itself, without an error. */
export function ended({ code, signal, output }: Ended): void {
  assert.is(signal, null, `ended by ${signal}: ${output}`);
  assert.is(code, 0, output);
}

/** Runs test/runtime/children/worker.ts in a worker thread. Node 20 gives workers no loader, so each registers tsx itself. */
export function startWorker(...argv: string[]): Worker {
  const [tsx, file] = ['tsx/esm/api', '../runtime/children/worker.ts'].map((name) =>
    JSON.stringify(import.meta.resolve(name)),
  );
  return new Worker(`import(${tsx}).then(({ register }) => { register(); return import(${file}); })`, {
    eval: true,
    argv,
  });
}
