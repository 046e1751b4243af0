// Terminates workers at random moments of a run. With the argument "alone" the main thread never loads the addon, so that
// it is loaded and unloaded with each worker; otherwise the main thread runs a program of its own all the while.
import { once } from 'node:events';
import { setTimeout as wait } from 'node:timers/promises';
import { openDevice } from '../../../lib/runtime/index.ts';
import { random } from '../../support/random.ts';
import { longFeeds, longRun, startWorker } from '../../support/runtime.ts';

const alone = process.argv[2] === 'alone';
const { next } = random(5);

async function own(running: { done: boolean }): Promise<void> {
  const device = await openDevice('cpu', { threads: 2 });
  const program = await device.compile(longRun(10));
  while (!running.done) if ((await program.run(longFeeds)).y[0] !== 10) throw new Error('a wrong result');
  device.dispose();
}

const state = { done: false };
const beside = alone ? undefined : own(state);
for (let i = 0; i < 10; i++) {
  const worker = startWorker('forever');
  // Half of them in mid-run, half anywhere on the way there.
  if (i % 2) await once(worker, 'message');
  await wait(next() * (i % 2 ? 30 : 600));
  await worker.terminate();
}
state.done = true;
await beside;
