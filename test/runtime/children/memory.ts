// Repeats what its argument names 1,000 times, and prints by how many MiB the process grew after the first 300, and how many
// threads it has.
import { readdirSync } from 'node:fs';
import { setImmediate as turn } from 'node:timers/promises';
import { add } from '../../../lib/graph/ops/elementwise.ts';
import { matmul } from '../../../lib/graph/ops/matmul.ts';
import { accumulate } from '../../../lib/graph/ops/optim.ts';
import { constant, input, parameterLeaf } from '../../../lib/graph/tensor.ts';
import { type Device, openDevice } from '../../../lib/runtime/index.ts';

const SIDE = 256;
const feeds = { x: new Float32Array(SIDE * SIDE).fill(1) };
const one = constant(Float32Array.of(1), [1], 'f32');
const x = input('x', [SIDE, SIDE]);
const weight = parameterLeaf([SIDE, SIDE], 'f32');
const y = add(matmul(x, weight), constant(feeds.x, [SIDE, SIDE], 'f32'));
const graph = { outputs: { y }, updates: [accumulate(one, [[weight, y]])] };

/** Everything anew, disposed of at the end: 256 KiB in each of half a dozen places. */
async function whole(device: Device): Promise<void> {
  const parameters = device.parameters();
  parameters.add(weight, { data: feeds.x });
  const program = await device.compile(graph, { parameters });
  await program.run(feeds, { onProgress: () => {} });
  const controller = new AbortController();
  const aborted = program.run(feeds, { signal: controller.signal }).catch(() => {});
  controller.abort();
  await aborted;
  await parameters.read(weight);
  program.dispose();
  parameters.dispose();
}

const device = await openDevice('cpu', { threads: 2 });
const parameters = device.parameters();
parameters.add(weight);
const program = await device.compile(graph, { parameters });

const jobs: Record<string, () => Promise<unknown>> = {
  'compile, run, dispose': () => whole(device),
  run: () => program.run(feeds),
  'refused compilations': async () => {
    const broken = { outputs: { z: constant(feeds.x, [SIDE * SIDE], 'f32'), y } };
    await device.compile(broken, { parameters: device.parameters() }).catch(() => {});
  },
  devices: async () => {
    const other = await openDevice('cpu', { threads: 2 });
    await whole(other);
    other.dispose();
  },
  // Nothing is disposed of: what the collector finds must be freed all the same.
  dropped: async () => {
    const fresh = device.parameters();
    fresh.add(weight);
    await (await device.compile(graph, { parameters: fresh })).run(feeds);
  },
};

const collect = async (): Promise<number> => {
  for (let i = 0; i < 3; i++) {
    globalThis.gc!();
    await turn();
  }
  return process.memoryUsage().rss;
};

const job = jobs[process.argv[2]];
let before = 0;
for (let i = 0; i < 1000; i++) {
  await job();
  if (i % 50 === 49) await collect();
  if (i === 299) before = await collect();
}
console.log(
  JSON.stringify({ grown: ((await collect()) - before) / 2 ** 20, threads: readdirSync('/proc/self/task').length }),
);
