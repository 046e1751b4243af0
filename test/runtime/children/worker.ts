// A worker that runs programs: "forever", or as many as its argument says, and then posts the last result.
import { parentPort } from 'node:worker_threads';
import { openDevice } from '../../../lib/runtime/index.ts';
import { longFeeds, longRun } from '../../support/runtime.ts';

const rounds = process.argv[2] === 'forever' ? Number.POSITIVE_INFINITY : Number(process.argv[2]);
const device = await openDevice('cpu', { threads: 2 });
const program = await device.compile(longRun(20));
let value = 0;
for (let i = 0; i < rounds; i++) {
  // Several in the queue, with all that can be under way: progress, an abort, a compilation.
  const runs = [program.run(longFeeds, { onProgress: () => {} }), program.run(longFeeds)];
  const aborted = program.run(longFeeds, { signal: AbortSignal.timeout(1) }).catch(() => {});
  const other = await device.compile(longRun(2));
  if (i === 0) parentPort?.postMessage('running');
  const [{ y }] = await Promise.all(runs);
  await aborted;
  value = y[0];
  other.dispose();
}
parentPort?.postMessage(value);
