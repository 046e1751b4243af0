import { memoryUsage } from 'node:process';
import type { CommandModule } from 'yargs';
import { ReflError } from '../errors.ts';
import { readBytes } from '../image/files.ts';
import type { CLIPConfig } from '../models/clip.ts';
import { type Preprocessing, preprocessings } from '../reward/pictures.ts';
import { openDevice } from '../runtime/index.ts';
import { type FrmOptions, type FrmStart, trainFrm } from '../train/frm.ts';
import { readLabels } from '../train/labels.ts';
import { heard, interval, percent } from './comparisons.ts';
import { UsageError } from './failure.ts';
import { interrupted } from './interrupt.ts';
import { dashed, deviceOptions, dtypeFor, dtypeOption, flag, number, text, typed } from './options.ts';
import { clock, Progress } from './progress.ts';

interface Args extends Omit<FrmOptions, 'from' | 'unlocked' | 'dtype'> {
  labels: string;
  weights?: string;
  model?: string;
  imageGroups: number;
  textLayers: number;
  unlockAll: boolean;
  dtype: 'auto' | 'f32' | 'bf16';
  device: string;
  threads?: number;
  json: boolean;
}

export const trainFrmCommand: CommandModule<object, Args> = {
  command: 'frm <labels>',
  describe: 'train a face reward model on labelled pairs; started again, it goes on from its newest checkpoint',
  builder: (yargs) =>
    yargs.positional('labels', { describe: 'what label wrote', type: 'string', demandOption: true }).options(
      dashed({
        weights: {
          ...text('HPS v2 as published, or a .safetensors file of any CLIP, to start from'),
          conflicts: 'model',
        },
        model: text("a JSON file in open_clip's words: a CLIP to be drawn anew, all of which trains"),
        tokenizer: { ...text("CLIP's tokenizer.json, its list of merges, or a folder with one"), demandOption: true },
        out: { ...text('folder for checkpoints, events for TensorBoard, and weights'), alias: 'o', demandOption: true },
        steps: number('updates of the weights', 20_000),
        batch: number('pairs a batch', 16),
        accumulate: number('batches an update', 1),
        lr: number('peak learning rate', 3.3e-6),
        warmup: number('steps until it is reached; a cosine follows', 500),
        weightDecay: number('of matrices', 0.35),
        imageGroups: number('how much of the image tower trains: groups from its end', 20),
        textLayers: number('blocks of the text tower that train', 11),
        unlockAll: flag('train everything'),
        preprocessing: {
          ...text('how pictures are brought to size, as score has it'),
          choices: Object.keys(preprocessings) as Preprocessing[],
          default: 'hps' as Preprocessing,
        },
        caption: text('of pairs that have none'),
        onlyPeople: flag("train on people's labels alone"),
        turn: flag('mirror and turn both pictures of a pair alike, anew each time: for judges of clearness alone'),
        average: flag('judge and keep averages of the weights'),
        recompute: flag('compute blocks twice, to save memory'),
        dtype: dtypeOption,
        seed: number('of the order of pairs', 0),
        evalEvery: number('steps between judgements on held-out people', 500),
        patience: number('judgements without a better one before training ends; 0 for no end', 0),
        checkpointEvery: number('steps between checkpoints', 500),
        ...deviceOptions,
        json: { describe: 'print one JSON object a step and a judgement', type: 'boolean', default: false },
      }),
    ),
  handler: train,
};

/** The least that each whole number may be. */
const least = {
  ...{ steps: 1, batch: 1, accumulate: 1, evalEvery: 1, checkpointEvery: 1 },
  ...{ warmup: 0, seed: 0, patience: 0 },
} as const;

async function train({ labels: path, json, device: name, threads, ...args }: Args): Promise<void> {
  for (const [key, smallest] of Object.entries(least)) {
    const value = args[key as keyof typeof least];
    if (!Number.isSafeInteger(value) || value < smallest) {
      throw new ReflError('ERR_OPTION', `${typed(key)} must be a whole number of at least ${smallest}, got ${value}`);
    }
  }
  if (!(args.lr > 0)) throw new ReflError('ERR_OPTION', `lr must be above 0, got ${args.lr}`);
  if (!(args.weightDecay >= 0))
    throw new ReflError('ERR_OPTION', `weightDecay must be 0 or more, got ${args.weightDecay}`);
  const labels = heard(await readLabels(path));
  const options = { ...args, from: await start(args) };
  using device = await openDevice(name, { threads });
  let progress: Progress | undefined;
  const result = await trainFrm(
    device,
    labels,
    {
      ...pick(options),
      from: options.from,
      unlocked: args.unlockAll || args.model ? 'all' : { imageGroups: args.imageGroups, textLayers: args.textLayers },
      dtype: dtypeFor(device, args.dtype),
      patience: args.patience || Infinity,
    },
    {
      signal: interrupted,
      onStart: (info) => {
        progress = new Progress(args.steps, 'steps', info.from);
        for (const line of describe(info)) progress.log(`refl-native: ${line}`);
      },
      onStep: (step) => {
        const memory = memoryUsage.rss();
        if (json) console.log(JSON.stringify({ ...step, memory }));
        const figures = `loss ${step.loss.toFixed(4)}  right ${percent(step.accuracy)}  ${(memory / 1e9).toFixed(1)} GB`;
        // Where no bar is drawn a line now and then shows that it lives.
        if (!json && !process.stderr.isTTY && (step.step % 100 === 0 || step.step === step.steps)) {
          const left = clock((step.steps - step.step) * step.seconds);
          progress?.log(`step ${step.step}/${step.steps}  ${figures}  ${step.seconds.toFixed(2)} s/step  ${left} left`);
        }
        progress?.update(step.step, figures);
      },
      onJudged: (step, { accuracy, loss }, best) => {
        if (json) console.log(JSON.stringify({ step, heldOut: accuracy, loss, best }));
        else
          progress?.log(
            `step ${step}  right on held-out people ${interval(accuracy)}${best ? ', the best so far' : ''}`,
          );
      },
    },
  );
  progress?.clear();
  if (!result) return;
  const { best, last } = result;
  console.log(json ? JSON.stringify({ best, last }) : `${best.path}\n${last.path}`);
}

/** The options of a run, without those of the command line alone. */
function pick(args: Omit<FrmOptions, 'from' | 'unlocked' | 'dtype'>): Omit<FrmOptions, 'from' | 'unlocked' | 'dtype'> {
  const { tokenizer, out, steps, batch, accumulate, lr, warmup, weightDecay, seed, preprocessing } = args;
  const { turn, average, recompute, caption, onlyPeople, evalEvery, patience, checkpointEvery } = args;
  return {
    ...{ tokenizer, out, steps, batch, accumulate, lr, warmup, weightDecay, seed, preprocessing },
    ...{ turn, average, recompute, caption, onlyPeople, evalEvery, patience, checkpointEvery },
  };
}

async function start({ weights, model }: Pick<Args, 'weights' | 'model'>): Promise<string | CLIPConfig> {
  if (weights !== undefined) return weights;
  if (model === undefined) throw new UsageError('give --weights or --model');
  const text = (await readBytes(model)).toString();
  try {
    return JSON.parse(text) as CLIPConfig;
  } catch (cause) {
    throw new UsageError(`${model}: it is not JSON`, { cause });
  }
}

function describe({ parameters, trained, pairs, heldOut, shortened, peakBytes, stateBytes, from }: FrmStart): string[] {
  const million = (count: number): string => `${(count / 1e6).toFixed(2)} million`;
  const gigabytes = (count: number): string => `${(count / 1e9).toFixed(2)} GB`;
  const memory = `${gigabytes(stateBytes)} of weights and state, ${gigabytes(peakBytes)} beside them`;
  return [
    `${million(trained)} of ${million(parameters)} parameters train; ${memory}`,
    `${pairs} pairs to train on, ${heldOut} of held-out people; ${from ? `going on from step ${from}` : 'from the start'}`,
    ...(shortened ? [`${shortened} captions are too long for the model, and lose their end`] : []),
  ];
}
