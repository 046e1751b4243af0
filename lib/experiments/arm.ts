import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { join, relative } from 'node:path';
import { JsonLinesFile } from '../data/jsonl.ts';
import { frmDemo } from '../demo/settings.ts';
import { makeFolder, writeAtomic } from '../image/files.ts';
import { frmReward } from '../reward/reward.ts';
import type { Device } from '../runtime/index.ts';
import { ClipTokenizer } from '../text/tokenizer.ts';
import { faceDistances, fidelity } from '../train/refl/measures.ts';
import { trainRefl } from '../train/refl/refl.ts';
import { paperWalk } from '../train/refl/rollout.ts';
import type { MovingOptions } from '../train/refl/session.ts';
import { type HeldOut, openJudge, setUp } from '../train/refl/setup.ts';
import type { Each, Measures } from '../train/refl/validation.ts';
import { type Alarm, alarmsOf, type Observation } from '../train/refl/watch.ts';
import { heldImages, type Material } from './material.ts';

/** What of the judge learns: all but what makes tokens of patches, as in its own training (lib/demo/judge.ts). */
const { layers } = frmDemo.clip.vision_cfg as { layers: number };
const unlocked = { imageGroups: layers + 1, textLayers: frmDemo.clip.text_cfg.layers };

/** The restorer that experiments begin with. */
export const startingModel = 'face-256';

/** All that decides what a run of training by rewards comes to, beside the material. */
export interface ArmSettings {
  readonly steps: number;
  readonly batch: number;
  readonly lr: number;
  /** Of the losses at the images; one of 0 is measured only. Where LPIPS's files are not there features of an expression network take their place. */
  readonly weights: Readonly<Record<'reward' | 'wavelet' | 'lpips', number>>;
  /** Weight of the mean squared difference from what {@link startingModel} makes of the same input; 0 leaves that out. */
  readonly drift: number;
  /** How the judge goes on learning; left out, it stays as it is. */
  readonly moving?: MovingOptions;
  /** Steps between looks at the people held out. */
  readonly lookEvery: number;
  /** Whether the run ends at the first look that raises an alarm. */
  readonly untilAlarm?: boolean;
  readonly seed: number;
}

/** One run of an experiment. */
export interface Arm {
  /** A short name, which its folder begins with. */
  readonly name: string;
  /** What makes it different from the others, for readers. */
  readonly says: string;
  readonly settings: ArmSettings;
  /** The run whose restorer this one goes on with, and whose first look its alarms are told by. */
  readonly after?: ArmResult;
}

/** What was seen of the people held out after so many steps. */
export interface Look {
  readonly step: number;
  /** Its `others` are {@link otherMeasures}. */
  readonly observation: Observation;
  /** The same picture by picture. */
  readonly each: Each;
  /** By the judge as it is then, as `train refl` says them. */
  readonly alarms: readonly Alarm[];
  /** By the judge as it was before it learned. */
  readonly byFirstJudge: readonly Alarm[];
}

/** What looks write down besides what the watch looks at: the first judge's reward, and PSNR. */
export const otherMeasures = ['original', 'psnr'] as const;

export interface ArmResult extends Pick<Arm, 'name' | 'says' | 'settings'> {
  /** Steps that the arms before it made. */
  readonly from: number;
  readonly looks: readonly Look[];
  /** Sheets of pictures at the first look and at the last: a row each of input, restoration and photograph. */
  readonly sheets: { readonly first: string; readonly last: string };
  /** The trained restorer, as `restore --model` takes it. */
  readonly restorer: string;
  readonly seconds: number;
}

export interface ArmEvents {
  readonly signal?: AbortSignal;
  readonly onStep?: (done: number, steps: number) => void;
  readonly onLook?: (look: Look) => void;
}

/** What of a result its folder keeps; paths are the folder's own. */
type Kept = Pick<ArmResult, 'looks' | 'sheets' | 'restorer' | 'seconds'>;

/**
 * Runs an arm in a folder of its own in `out`, named after it and all that decides what comes of it: one that is done is read
 * back, one that was stopped goes on. Throws what {@link setUp} and {@link trainRefl} throw, and the signal's reason.
 */
export async function runArm(
  device: Device,
  material: Material,
  arm: Arm,
  out: string,
  events: ArmEvents = {},
): Promise<ArmResult> {
  const { name, says, settings, after } = arm;
  const begin = after && relative(out, after.restorer);
  const decisive = { settings, material: material.key, begin, device: device.kind, threads: device.threads };
  const hash = createHash('sha256').update(JSON.stringify(decisive)).digest('hex');
  const folder = join(out, `${name}-${hash.slice(0, 8)}`);
  const path = join(folder, 'result.json');
  const text = await readFile(path, 'utf8').catch(() => undefined);
  let kept: Kept;
  if (text === undefined) {
    await makeFolder(folder);
    kept = await train(device, material, arm, folder, events);
    await writeAtomic(path, Buffer.from(`${JSON.stringify(kept)}\n`));
  } else kept = JSON.parse(text) as Kept;
  const at = (file: string): string => join(folder, file);
  const { first, last } = kept.sheets;
  return {
    ...{ name, says, settings, from: after ? after.from + lastOf(after).step : 0, ...kept },
    ...{ sheets: { first: at(first), last: at(last) }, restorer: at(kept.restorer) },
  };
}

async function train(
  device: Device,
  material: Material,
  { settings, after }: Arm,
  folder: string,
  { signal, onStep, onLook }: ArmEvents,
): Promise<Kept> {
  const started = performance.now();
  const { steps, batch, lr, weights, drift, moving, lookEvery, untilAlarm, seed } = settings;
  await using file = await JsonLinesFile.open(join(folder, 'looks.jsonl'));
  const looks = new Map(file.lines.map(({ record }) => [record.step as number, record as unknown as Look]));
  const setup = await setUp(device, {
    ...{ model: after?.restorer ?? startingModel, anchor: drift ? startingModel : undefined, side: material.side },
    ...{ judge: material.judge.weights, tokenizer: material.judge.tokenizer, caption: material.judge.caption },
    ...{ independent: material.independent.weights, lpips: material.lpips },
    ...{ photographs: material.sources, heldOut: await looking(material), seed, unlocked },
    ...{ walk: paperWalk, recompute: false },
    lossWeights: material.lpips?.length ? weights : { ...weights, features: weights.lpips },
  });
  try {
    const ended = new AbortController();
    const isLast = ({ step, alarms }: Look): boolean => step >= steps || (untilAlarm === true && alarms.length > 0);
    const end = [...looks.values()].find(isLast)?.step ?? steps;
    const done = await trainRefl(
      device,
      setup.stages.parameters,
      setup.pairs,
      setup.models,
      {
        ...{ out: folder, steps: end, batch, accumulate: 1, lr, weightDecay: 0.01, drift, seed, moving },
        ...{ validateEvery: lookEvery, checkpointEvery: lookEvery },
      },
      {
        signal: signal ? AbortSignal.any([signal, ended.signal]) : ended.signal,
        onStep: ({ step }) => onStep?.(step, steps),
        onObserved: async ({ step, observation, each }) => {
          const first = after?.looks[0].observation ?? looks.get(0)?.observation ?? observation;
          const look = { step, observation, each, ...alarmsBy(first, observation) };
          // A run that was stopped between a look and its checkpoint looks again and sees the same.
          if (!looks.has(step)) await file.append(look);
          looks.set(step, look);
          onLook?.(look);
          if (isLast(look)) ended.abort();
        },
      },
    );
    if (!done) signal?.throwIfAborted();
    const [first, last] = [0, Math.max(...looks.keys())].map((step) => `preview-${String(step).padStart(8, '0')}.png`);
    await setup.opened.save(folder);
    return {
      looks: [...looks.values()].sort((a, b) => a.step - b.step),
      ...{ sheets: { first, last }, restorer: 'restorer.safetensors' },
      seconds: (performance.now() - started) / 1000,
    };
  } finally {
    setup.dispose();
  }
}

function alarmsBy(first: Observation, now: Observation): Pick<Look, 'alarms' | 'byFirstJudge'> {
  // What it gives the photographs does not change.
  const before = (seen: Observation): Observation => ({ ...seen, reward: seen.others!.original, photographs: 0 });
  return { alarms: alarmsOf(first, now), byFirstJudge: alarmsOf(before(first), before(now)) };
}

export const lastOf = ({ looks }: Pick<ArmResult, 'looks'>): Look => looks[looks.length - 1];

/** How the people held out are looked at. */
const looking = async (material: Material): Promise<HeldOut> => ({
  images: await heldImages(material),
  measures: async (stages) => {
    const { weights, tokenizer } = material.judge;
    const original = frmReward(await openJudge(stages, weights, await ClipTokenizer.load(tokenizer)));
    const others: Record<(typeof otherMeasures)[number], Measures[string]> = {
      original: (judged) => original.score(judged),
      psnr: fidelity,
    };
    return { distances: await faceDistances(stages.parameters), others };
  },
});
