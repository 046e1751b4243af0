// Trains in a process that may be killed: FOLDER, then options as JSON. Prints a line a step.
import { openDevice } from '../../../lib/runtime/index.ts';
import { trainFrm } from '../../../lib/train/frm.ts';
import { readLabels } from '../../../lib/train/labels.ts';

const [labels, options] = process.argv.slice(2);
using device = await openDevice('cpu', { threads: 1 });
await trainFrm(
  device,
  (await readLabels(labels)).value,
  { patience: Infinity, ...JSON.parse(options) },
  {
    onStep: ({ step }) => console.log(step),
  },
);
