import { totalmem } from 'node:os';
import { memoryUsage } from 'node:process';
import type { CommandModule } from 'yargs';
import { ReflError } from '../errors.ts';
import { openDevice } from '../runtime/index.ts';
import { type LoraSettings, mostLayers } from '../train/refl/lora.ts';
import { paperWeights } from '../train/refl/objective.ts';
import { checkLora, trainedModels } from '../train/refl/open.ts';
import { type PlanOptions, planMemory, plannedModels } from '../train/refl/plan.ts';
import { type OnAlarm, type ReflObservation, type ReflStart, type ReflStep, trainRefl } from '../train/refl/refl.ts';
import { paperWalk } from '../train/refl/rollout.ts';
import { type Compat, type Kept, paperJudge } from '../train/refl/session.ts';
import { setUp } from '../train/refl/setup.ts';
import { findCaptions } from './captions.ts';
import { UsageError } from './failure.ts';
import { interrupted } from './interrupt.ts';
import { amount, dashed, deviceOptions, dtypeFor, dtypeOption, flag, number, text, typed } from './options.ts';
import { clock, Progress } from './progress.ts';
import { sourceOf } from './train.ts';

interface Args {
  sources: string[];
  model: string;
  weights?: string;
  networks?: string;
  judge?: string;
  tokenizer?: string;
  lpips?: string[];
  independent?: string;
  caption: string;
  captions?: string;
  promptCaptions: boolean;
  heldOut?: string;
  looks: number;
  aligned: boolean;
  out?: string;
  steps: number;
  batch: number;
  accumulate: number;
  lr: number;
  crop?: number;
  rollout: number;
  gradientSteps: number;
  judgeEvery: number;
  judgeLr: number;
  judgeDuring?: string;
  imageGroups: number;
  textLayers: number;
  unlockAll: boolean;
  recompute: boolean;
  offload: boolean;
  dtype: 'auto' | 'f32' | 'bf16';
  seed: number;
  validateEvery: number;
  checkpointEvery: number;
  compat?: Compat;
  drift?: Kept;
  driftWeight?: number;
  rewardWeight: number;
  waveletWeight: number;
  lpipsWeight: number;
  featuresWeight?: number;
  onAlarm: OnAlarm;
  lora?: number;
  loraLayers: string;
  override: boolean;
  plan: boolean;
  device: string;
  threads?: number;
  json: boolean;
}

export const trainReflCommand: CommandModule<object, Args> = {
  command: 'refl [sources..]',
  describe: 'train a restorer by a face reward model; started again, it goes on from its newest checkpoint',
  builder: (yargs) =>
    yargs
      .positional('sources', {
        describe: 'folders of photographs, none smaller than a crop; FOLDER=2 is drawn from twice as often',
        type: 'string',
        array: true,
        default: [],
      })
      .options(
        dashed({
          model: {
            ...text(`what trains: face-256, a file of its kind, ${trainedModels.join(', ')}`),
            default: 'face-256',
          },
          weights: text("folder with the model's official files, or SwinIR's file"),
          networks: text('a JSON file of configurations, for networks of other sizes than the published ones'),
          judge: text('file of the face reward model, or of any CLIP that train frm wrote'),
          tokenizer: text("CLIP's tokenizer.json, its list of merges, or a folder with one"),
          lpips: { describe: "LPIPS's files: VGG16 and the linear layers", type: 'string', array: true },
          independent: text('another face reward model, which nobody learns from, to watch by'),
          caption: { ...text('what photographs show that have no caption of their own'), default: 'a photo of a face' },
          captions: text('JSON lines of image and caption, as data caption writes them'),
          promptCaptions: flag('let captions steer DiffBIR and OSEDiff, too; by default the empty text does'),
          heldOut: text('folder of photographs to look at and not to train on'),
          looks: number('crops of those', 8),
          aligned: flag('their middles are aligned faces: also watch identity, landmarks and features of faces'),
          out: { ...text('folder for checkpoints, events, previews and weights'), alias: 'o' },
          steps: number('updates of the weights', 3500),
          batch: number('images a batch', 1),
          accumulate: number('batches an update', 4),
          lr: number('learning rate', 5e-5),
          rewardWeight: number('what a lack of reward costs', paperWeights.reward),
          waveletWeight: number('what a difference of low frequencies costs', paperWeights.wavelet),
          lpipsWeight: number('what a distance by LPIPS costs, if --lpips is there', paperWeights.lpips),
          featuresWeight: amount("what a distance by face-api's expression network costs, in LPIPS's place [left out]"),
          crop: amount('side of the crops, in pixels [what the model was made for]'),
          rollout: number('denoising steps of DiffBIR', paperWalk.steps),
          gradientSteps: number('how many of them, from the end, have gradients', paperWalk.traced),
          judgeEvery: number('updates for each one of the judge; 0 leaves it as it is', paperJudge.every),
          judgeDuring: text('steps at which it learns, as 1-1000,2001- [all]'),
          judgeLr: number("the judge's learning rate", paperJudge.lr),
          imageGroups: number("how much of the judge's image tower trains: groups from its end", 20),
          textLayers: number('blocks of its text tower that train', 11),
          unlockAll: flag('train all of the judge'),
          lora: amount("rank of adapters that train in the place of DiffBIR's ControlNet"),
          loraLayers: {
            ...text('which layers have one: a regular expression for their paths'),
            default: mostLayers,
          },
          recompute: flag('compute blocks twice, to save memory'),
          offload: flag("keep AdamW's moments in the host's memory, to save the device's: the same bits"),
          dtype: dtypeOption,
          seed: number('of crops, damage and noise', 231),
          validateEvery: number('updates between looks at the held-out photographs', 500),
          checkpointEvery: number('updates between checkpoints', 500),
          compat: {
            describe: "official: DiffusionReward's public code with its flaws, to compare with",
            choices: ['official'] as const,
            requiresArg: true,
          },
          drift: {
            describe:
              'what is kept from drifting: features, those of networks of one step being their pictures, or the weights',
            choices: ['features', 'weights'] as const,
            requiresArg: true,
          },
          driftWeight: amount("what that costs [the paper's for features, nothing for pictures, 1 for weights]"),
          onAlarm: {
            describe: 'what is done when the watch raises an alarm',
            choices: ['warn', 'pause', 'rollback', 'strengthen'] as const,
            default: 'warn' as const,
            requiresArg: true,
          },
          override: flag('go on from a state that was trained with other options, which is refused otherwise'),
          plan: flag(`say how much memory it takes and do nothing: for ${plannedModels.join(', ')}; needs no files`),
          ...deviceOptions,
          json: { describe: 'print one JSON object an update and a look', type: 'boolean', default: false },
        }),
      ),
  handler: train,
};

/** The least that each whole number may be. */
const least = {
  ...{
    steps: 1,
    batch: 1,
    accumulate: 1,
    rollout: 1,
    gradientSteps: 1,
    looks: 1,
    validateEvery: 1,
    checkpointEvery: 1,
  },
  ...{ seed: 0, judgeEvery: 0, imageGroups: 0, textLayers: 0 },
} as const;

async function train({ sources, device: name, threads, json, ...args }: Args): Promise<void> {
  for (const [key, smallest] of Object.entries(least)) {
    const value = args[key as keyof typeof least];
    if (!Number.isSafeInteger(value) || value < smallest) {
      throw new ReflError('ERR_OPTION', `${typed(key)} must be a whole number of at least ${smallest}, got ${value}`);
    }
  }
  const { rewardWeight: reward, waveletWeight: wavelet, lpipsWeight, featuresWeight: features } = args;
  for (const weight of [args.driftWeight, reward, wavelet, lpipsWeight, features]) {
    if (!((weight ?? 0) >= 0)) throw new ReflError('ERR_OPTION', `weights must not be below 0, got ${weight}`);
  }
  if (!(args.lr > 0 && args.judgeLr > 0)) throw new ReflError('ERR_OPTION', 'learning rates must be above 0');
  const during = args.judgeDuring === undefined ? undefined : args.judgeDuring.split(',').map(timeOf);
  const moving = args.judgeEvery ? { ...paperJudge, every: args.judgeEvery, lr: args.judgeLr, during } : undefined;
  const lora = args.lora === undefined ? undefined : loraOf(args.lora, args);
  const walk = { ...paperWalk, steps: args.rollout, traced: args.gradientSteps };
  checkLora(args.model, { lora });
  if (args.plan) return printPlan(args, { moving, walk, lora }, json);
  const { judge, tokenizer, out } = args;
  if (!sources.length || judge === undefined || tokenizer === undefined || out === undefined) {
    throw new UsageError('name folders of photographs, --judge, --tokenizer and --out');
  }
  const kept = args.drift ?? 'features';
  const { model, weights, networks, lpips, independent, caption, heldOut, looks, aligned, crop, seed } = args;
  if (aligned && heldOut === undefined) throw new UsageError('--aligned says what --held-out names');
  if (args.promptCaptions && args.captions === undefined) throw new UsageError('--prompt-captions needs --captions');
  const captionOf = args.captions === undefined ? undefined : await findCaptions(args.captions);
  const { steps, batch, accumulate, lr, validateEvery, checkpointEvery, override, onAlarm } = args;
  const { recompute, offload, compat } = args;
  const photographs = await Promise.all(sources.map(sourceOf));
  using device = await openDevice(name, { threads });
  const dtype = dtypeFor(device, args.dtype);
  const compute = dtype === 'f32' ? undefined : dtype;
  const setup = await setUp(device, {
    ...{ model, weights, networks, judge, tokenizer, lpips, independent, caption, photographs, seed },
    lossWeights: { reward, wavelet, lpips: lpipsWeight, features },
    anchor: kept === 'features' && args.driftWeight ? true : undefined,
    ...{ side: crop, recompute, compute, walk, compat, captionOf, prompts: args.promptCaptions, lora },
    heldOut: heldOut === undefined ? undefined : { folder: heldOut, looks, aligned },
    unlocked: moving && (args.unlockAll ? 'all' : { imageGroups: args.imageGroups, textLayers: args.textLayers }),
  });
  try {
    let progress: Progress | undefined;
    const options = {
      ...{ out, steps, batch, accumulate, lr, seed, moving, recompute, validateEvery, checkpointEvery },
      ...{ override, compat, onAlarm, compute, offload },
      ...{ weightDecay: 0.01, kept, drift: args.driftWeight ?? (kept === 'weights' ? 1 : setup.opened.drift) },
    };
    const path = await trainRefl(device, setup.stages.parameters, setup.pairs, setup.models, options, {
      signal: interrupted,
      onStart: (start) => {
        progress = new Progress(steps, 'steps', start.from);
        for (const line of [...described(start), ...setup.notes]) progress.log(`refl-native: ${line}`);
      },
      onStep: (step) => {
        const memory = memoryUsage.rss();
        if (json) console.log(JSON.stringify({ ...step, memory }));
        const figures = `${figuresOf(step)}  ${(memory / 1e9).toFixed(1)} GB`;
        // Where no bar is drawn a line now and then shows that it lives.
        if (!json && !process.stderr.isTTY && (step.step % 100 === 0 || step.step === steps)) {
          const left = clock((steps - step.step) * step.seconds);
          progress?.log(`step ${step.step}/${steps}  ${figures}  ${step.seconds.toFixed(2)} s/step  ${left} left`);
        }
        progress?.update(step.step, figures);
      },
      onObserved: (seen) => {
        if (json) console.log(JSON.stringify(seen));
        else for (const line of seenLines(seen)) (progress ?? console).log(line);
      },
    });
    progress?.clear();
    if (!path) return;
    const restorer = await setup.opened.save(out);
    console.log(json ? JSON.stringify({ restorer, checkpoint: path }) : restorer);
  } finally {
    setup.dispose();
  }
}

function loraOf(rank: number, { loraLayers: layers, seed }: Pick<Args, 'loraLayers' | 'seed'>): LoraSettings {
  if (Number.isSafeInteger(rank) && rank > 0) return { rank, layers, seed };
  throw new ReflError('ERR_OPTION', `lora must be a whole number of at least 1, got ${rank}`);
}

/** FIRST-LAST of steps, or FIRST- to the end. */
function timeOf(part: string): [number, number] {
  const [, first, last] = /^(\d+)-(\d*)$/.exec(part) ?? [];
  const time: [number, number] = [Number(first), last ? Number(last) : Number.MAX_SAFE_INTEGER];
  if (!(time[0] >= 1 && time[0] <= time[1])) {
    throw new UsageError(`--judge-during takes steps as 1-1000,2001-, got ${part}`);
  }
  return time;
}

/** The memory of a published model's training, in both precisions. */
async function printPlan(
  {
    model,
    crop: side = 512,
    batch,
    accumulate,
    recompute,
    offload,
  }: Pick<Args, 'model' | 'crop' | 'batch' | 'accumulate' | 'recompute' | 'offload'>,
  recipe: Pick<PlanOptions, 'moving' | 'walk' | 'lora'>,
  json: boolean,
): Promise<void> {
  if (!plannedModels.includes(model)) {
    const others = 'a model with files of its own says what it takes as it starts';
    throw new UsageError(`--plan knows ${plannedModels.join(', ')}; ${others}`);
  }
  const memory = totalmem();
  for (const compute of ['f32', 'bf16'] as const) {
    const plan = await planMemory(model, { ...recipe, side, batch, accumulate, recompute, offload, compute });
    if (json) {
      console.log(JSON.stringify({ model, side, batch, compute, ...plan, memory }));
      continue;
    }
    const all = plan.state + plan.programs;
    const parts = `${gigabytes(plan.state)} of weights, sums and moments, ${gigabytes(plan.programs)} beside them`;
    const away = plan.host ? `, and ${gigabytes(plan.host)} of moments in the host's memory` : '';
    console.log(`${model} at ${side} x ${side}, batch ${batch}, ${compute}: ${gigabytes(all)} (${parts})${away}`);
    if (compute === 'f32' && all > memory)
      console.log(`  this machine has ${gigabytes(memory)}: ${advice(recompute, recipe)}`);
  }
}

function advice(recompute: boolean, { moving }: Pick<PlanOptions, 'moving'>): string {
  const ways = [
    ...(recompute ? [] : ['--recompute']),
    ...(moving ? ['--judge-every 0, which leaves the judge as it is'] : []),
    'a smaller --crop',
  ];
  return `it takes less with ${ways.join(', or ')}`;
}

const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(2)} GB`;

function described({ trained, peakBytes, stateBytes, hostBytes, from, overridden }: ReflStart): string[] {
  const away = hostBytes ? `, ${gigabytes(hostBytes)} of it in the host's memory` : '';
  const memory = `${gigabytes(stateBytes + hostBytes)} of weights and state${away}, ${gigabytes(peakBytes)} beside them`;
  const begin = from ? `going on from step ${from}` : 'from the start';
  const summary = `${(trained / 1e6).toFixed(2)} million parameters train; ${memory}; ${begin}`;
  return [summary, ...overridden.map((option) => `overridden: ${option}`)];
}

function figuresOf({ losses, judge, skipped }: ReflStep): string {
  const reward = `reward ${(1 - losses.reward).toFixed(4)}`;
  const margin = judge ? [`photographs preferred by ${judge.margin.toFixed(4)}`] : [];
  return [reward, ...margin, ...(skipped ? [`${skipped} steps skipped`] : [])].join('  ');
}

const answers = {
  warn: [],
  pause: ['pausing'],
  rollback: ['going back to the last look without alarms, on another way at half the rate'],
  strengthen: ['from now on the judge learns twice as often, and drift costs twice as much'],
} as const;

function seenLines({ step, observation, alarms, preview, answer = 'warn' }: ReflObservation): string[] {
  const { reward, distances } = observation;
  const far = Object.entries(distances).map(([name, value]) => `${name} ${value.toFixed(4)}`);
  return [
    `step ${step}  held out: reward ${reward.toFixed(4)}  ${far.join('  ')}  ${preview}`,
    ...alarms.map(({ detector, says, value, limit }) => {
      return `step ${step}  WATCH ${detector}: ${says} (${value.toFixed(3)}, limit ${limit})`;
    }),
    ...answers[answer].map((said) => `step ${step}  ${said}`),
  ];
}
