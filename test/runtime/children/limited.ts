// Asks for a device of more threads than its process may start, and then for a small one, which must work.
import { openDevice } from '../../../lib/runtime/index.ts';
import { codeOf, errorOf, longFeeds, longRun } from '../../support/runtime.ts';

const error = await errorOf(() => openDevice('cpu', { threads: 64 }));
console.log(error.code, error.message);
if ((await codeOf(() => openDevice('cpu', { threads: 65 }))) !== 'ERR_DEVICE') throw new Error('not refused again');
const device = await openDevice('cpu', { threads: 2 });
const program = await device.compile(longRun(3));
console.log(`ended with ${(await program.run(longFeeds)).y[0]}`);
