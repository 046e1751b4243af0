// Opens a device, runs a program and disposes of nothing: "idle" then has nothing left to do, "pending" leaves a run
// under way that must still end, "exit" calls process.exit in the middle of one, and "throw" fails in the middle of one.

import { neg } from '../../../lib/graph/ops/elementwise.ts';
import { input, parameterLeaf } from '../../../lib/graph/tensor.ts';
import { evaluate, openDevice } from '../../../lib/runtime/index.ts';
import { longFeeds, longRun } from '../../support/runtime.ts';

const device = await openDevice('cpu', { threads: 2 });
device.parameters().add(parameterLeaf([1000], 'f32'));
await evaluate(device, { y: neg(input('x', [1])) }, { x: new Float32Array(1) });
const program = await device.compile(longRun(100));
console.log('ready');
if (process.argv[2] !== 'idle') {
  void program.run(longFeeds).then(({ y }) => console.log(`ended with ${y[0]}`));
  setTimeout(() => {
    if (process.argv[2] === 'exit') process.exit(0);
    if (process.argv[2] === 'throw') throw new Error('thrown on purpose');
  }, 20);
}
