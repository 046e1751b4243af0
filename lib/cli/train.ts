import { stat } from 'node:fs/promises';
import type { CommandModule } from 'yargs';
import { FolderPairs, type Source } from '../data/pairs.ts';
import { ReflError } from '../errors.ts';
import { openDevice } from '../runtime/index.ts';
import { baseConfig, trainBase } from '../train/base.ts';
import { interrupted } from './interrupt.ts';
import { dashed, deviceOptions, number, typed } from './options.ts';
import { clock, Progress } from './progress.ts';

interface Args {
  sources: string[];
  out: string;
  steps: number;
  batch: number;
  crop: number;
  lr: number;
  seed: number;
  init?: string;
  checkpointEvery: number;
  device: string;
  threads?: number;
  json: boolean;
}

export const trainBaseCommand: CommandModule<object, Args> = {
  command: 'base <sources..>',
  describe: 'train the default restorer on pictures; started again, it goes on from its newest checkpoint',
  builder: (yargs) =>
    yargs
      .positional('sources', {
        describe: `folders of pictures, none smaller than a crop; FOLDER=2 is drawn from twice as often`,
        type: 'string',
        array: true,
        default: undefined,
        demandOption: true,
      })
      .options(
        dashed({
          out: {
            alias: 'o',
            requiresArg: true,
            describe: 'folder for checkpoints and weights',
            type: 'string',
            demandOption: true,
          },
          steps: number('updates of the weights', 10_000),
          batch: number('crops a step', 4),
          crop: number('side of the random crops, in pixels', 128),
          lr: number('peak learning rate', 1e-3),
          seed: number('of weights, crops and damage', 0),
          init: { describe: 'weights to start from, as an earlier run wrote them', type: 'string', requiresArg: true },
          checkpointEvery: number('steps between checkpoints', 250),
          ...deviceOptions,
          json: { describe: 'print one JSON object a step', type: 'boolean', default: false },
        }),
      ),
  handler: train,
};

async function train({ sources, out, device: name, threads, json, ...options }: Args): Promise<void> {
  for (const key of ['steps', 'batch', 'crop', 'checkpointEvery', 'seed'] as const) {
    if (!Number.isSafeInteger(options[key]) || options[key] < (key === 'seed' ? 0 : 1)) {
      throw new ReflError('ERR_OPTION', `${typed(key)} must be a whole number, got ${options[key]}`);
    }
  }
  if (!(options.lr > 0)) throw new ReflError('ERR_OPTION', `lr must be above 0, got ${options.lr}`);
  const { steps, batch, crop, lr, seed, init, checkpointEvery } = options;
  const folders = await Promise.all(sources.map(sourceOf));
  using device = await openDevice(name, { threads });
  using pairs = await FolderPairs.open(device, folders, { size: crop, seed });
  let progress = new Progress(steps, 'steps');
  const path = await trainBase(
    device,
    pairs,
    { config: baseConfig, out, steps, batch, lr, seed, init, checkpointEvery },
    {
      signal: interrupted,
      onStart: ({ parameters, peakBytes, from }) => {
        progress = new Progress(steps, 'steps', from);
        const size = `${(parameters / 1e6).toFixed(2)} million parameters, ${(peakBytes / 1e9).toFixed(2)} GB beside them`;
        progress.log(
          `refl-native: ${size}, ${device.threads} threads; ${from ? `going on from step ${from}` : 'from the start'}`,
        );
      },
      onStep: (step) => {
        const psnr = `${(-step.loss).toFixed(2)} dB`;
        if (json) console.log(JSON.stringify(step));
        // Where no bar is drawn a line now and then shows that it lives.
        else if (!process.stderr.isTTY && (step.step % 100 === 0 || step.step === steps)) {
          const left = clock((steps - step.step) * step.seconds);
          progress.log(`step ${step.step}/${steps}  PSNR ${psnr}  ${step.seconds.toFixed(2)} s/step  ${left} left`);
        }
        progress.update(step.step, `PSNR ${psnr}`);
      },
    },
  );
  progress.clear();
  if (path) console.log(json ? JSON.stringify({ output: path }) : path);
}

/** FOLDER, or FOLDER=WEIGHT unless a folder has that very name. */
export async function sourceOf(text: string): Promise<Source> {
  const [, folder, weight] = /^(.+)=(\d+(?:\.\d+)?)$/.exec(text) ?? [];
  const exists = await stat(text).then(
    () => true,
    () => false,
  );
  return folder && !exists ? { folder, weight: Number(weight) } : { folder: text, weight: 1 };
}
