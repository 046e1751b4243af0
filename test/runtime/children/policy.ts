// Runs a program in a worker thread, which is the first to load the addon.
import { once } from 'node:events';
import { startWorker } from '../../support/runtime.ts';

await once(startWorker('1'), 'exit');
