// Trains a small restorer by rewards in a process that may be killed: KIND, FOLDER, then options as JSON. Prints a line a step.
import { openDevice } from '../../../lib/runtime/index.ts';
import { trainRefl } from '../../../lib/train/refl/refl.ts';
import { type Kind, made, options, pairs } from '../refl/small.ts';

const [kind, out, changed] = process.argv.slice(2);
using device = await openDevice('cpu', { threads: 1 });
const { models, parameters } = await made(device, kind as Kind);
const run = { ...options, ...JSON.parse(changed), out };
await trainRefl(device, parameters, pairs, models, run, { onStep: ({ step }) => console.log(step) });
models.trainee.dispose();
parameters.dispose();
