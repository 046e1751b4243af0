import { FolderPairs, type Source } from '../../data/pairs.ts';
import { ReflError } from '../../errors.ts';
import { mean } from '../../graph/ops/reduce.ts';
import { loadLpips } from '../../metrics/lpips.ts';
import type { CLIP } from '../../models/clip.ts';
import { LPIPS } from '../../models/lpips.ts';
import { Stages } from '../../restore/stages.ts';
import { openClip } from '../../reward/clip_file.ts';
import { type Unlocked, unlock } from '../../reward/frm.ts';
import { frmReward, type Reward } from '../../reward/reward.ts';
import type { Device } from '../../runtime/index.ts';
import { ClipTokenizer } from '../../text/tokenizer.ts';
import { sampledDigest } from '../../weights/digest.ts';
import { loadWeights } from '../../weights/load.ts';
import { openWeights } from '../../weights/open.ts';
import { expressionDistance, faceDistances, plainDistances } from './measures.ts';
import { lpipsDistance, lpipsLoss, paperWeights, rewardLoss, type Weighted, waveletLoss } from './objective.ts';
import { type OpenedTrainee, openTrainee, type TraineeOptions } from './open.ts';
import type { Precision } from './restored.ts';
import type { Caption, ReflModels, StepImages } from './session.ts';
import { madeIn, widenTrained } from './trainable.ts';
import { type Measures, Validation, type ValidationModels } from './validation.ts';

/** Of the losses of images; one of 0 is measured only. */
export interface LossWeights extends Readonly<Record<'reward' | 'lpips' | 'wavelet', number>> {
  /** Of {@link expressionDistance}, for those who have no files of LPIPS; left out, that is not even measured. */
  readonly features?: number;
}

export interface SetupOptions extends TraineeOptions {
  /** Name or path of the restorer. */
  readonly model: string;
  /** Files of the face reward model, of CLIP's tokenizer, and of LPIPS, without which that loss is left out. */
  readonly judge: string;
  readonly tokenizer: string;
  readonly lpips?: readonly string[];
  /** Another face reward model, which nobody learns from: the watch asks it, too. */
  readonly independent?: string;
  /** What of the judge may move; nothing where it is left out. */
  readonly unlocked?: Unlocked | 'all';
  /** What pictures show by their paths, where it is known; and the caption of all others. */
  readonly captionOf?: (path: string) => string | undefined;
  readonly caption: string;
  /** {@link paperWeights} by default. */
  readonly lossWeights?: LossWeights;
  /** Folders of photographs to train on. */
  readonly photographs: readonly Source[];
  /** What is only looked at: crops of a folder of photographs, or images and how they are measured. */
  readonly heldOut?: HeldOutFolder | HeldOut;
  readonly seed: number;
}

/** Photographs that are only looked at. */
export interface HeldOutFolder {
  readonly folder: string;
  /** Crops of them. */
  readonly looks: number;
  /** Whether their middles are aligned faces: those are the crops then, and {@link faceDistances} measures them, too. */
  readonly aligned?: boolean;
}

/** Images that are only looked at, of the trainee's side. */
export interface HeldOut {
  readonly images: StepImages;
  /** Of the pictures that they are from, by their numbers: captions go by them. */
  readonly paths?: readonly string[];
  /** What is measured of them besides what always is. */
  measures(stages: Stages): Promise<Pick<ValidationModels, 'distances' | 'others'>>;
}

/** Everything a run needs, loaded. */
export interface Setup {
  readonly stages: Stages;
  readonly opened: OpenedTrainee;
  readonly models: ReflModels & { readonly validation?: Validation };
  readonly pairs: FolderPairs;
  /** What was left out or shortened, in words. */
  readonly notes: readonly string[];
  dispose(): void;
}

/** Loads a restorer, its judges and its photographs. Throws what {@link openTrainee}, the readers and FolderPairs throw. */
export async function setUp(device: Device, options: SetupOptions): Promise<Setup> {
  const made: { dispose(): void }[] = [];
  const held = <T extends { dispose(): void }>(part: T): T => {
    made.push(part);
    return part;
  };
  const dispose = (): void => {
    for (const part of made.reverse()) part.dispose();
  };
  try {
    const stages = held(new Stages(device));
    const { parameters } = stages;
    const { compute, recompute } = options;
    const antialias = options.compat !== 'official';
    const opened = await openTrainee(stages, options.model, options);
    held(opened.trainee);
    const notes: string[] = [];
    const tokenizer = await ClipTokenizer.load(options.tokenizer);
    const judge = await openJudge(stages, options.judge, tokenizer, { unlocked: options.unlocked, compute });
    const length = judge.positional_embedding.value.shape[0];
    const { ids: caption, shortened } = tokenizer.encode([options.caption], length);
    if (shortened.length) notes.push('the caption is too long for the judge and loses its end');
    const captionsFor = (paths: readonly string[], what: string): Caption[] | undefined => {
      if (!options.captionOf) return undefined;
      const found = paths.map(options.captionOf);
      const missing = found.filter((text) => text === undefined).length;
      if (missing) notes.push(`${missing} of ${paths.length} ${what} have no caption and count as: ${options.caption}`);
      const texts = found.map((known) => known ?? options.caption);
      const { ids, shortened } = tokenizer.encode(texts, length);
      if (shortened.length) notes.push(`${shortened.length} captions of ${what} are too long and lose their ends`);
      return texts.map((text, i) => ({ text, ids: ids.subarray(i * length, (i + 1) * length) }));
    };

    const asReward = (clip: CLIP): Reward => frmReward(clip, { antialias, compute, recompute });
    const weights: LossWeights = options.lossWeights ?? paperWeights;
    const reward = asReward(judge);
    const terms: Record<string, Weighted> = {
      reward: { weight: weights.reward, loss: rewardLoss(reward) },
      wavelet: { weight: weights.wavelet, loss: waveletLoss },
    };
    if (weights.features !== undefined) {
      const distance = await expressionDistance(parameters);
      terms.features = { weight: weights.features, loss: (judged) => mean(distance(judged)) };
    }
    const distances: Record<string, Measures[string]> = { ...plainDistances };
    if (options.lpips?.length) {
      const lpips = madeIn(compute, () => new LPIPS()).train(false);
      await loadLpips(parameters, lpips, await Promise.all(options.lpips.map(openWeights)));
      terms.lpips = { weight: weights.lpips, loss: lpipsLoss(lpips, compute) };
      distances.lpips = lpipsDistance(lpips, compute);
    } else notes.push("without LPIPS's files its loss is left out");

    const { side, trainee } = opened;
    const pairs = held(await FolderPairs.open(device, options.photographs, { size: side, seed: options.seed }));
    const captions = captionsFor(pairs.paths, 'photographs');
    const files = { ...(await digestsOf(opened, options)), tokenizer: tokenizer.digest };
    const models = { trainee, terms, judge, caption, captions, files };
    if (!options.heldOut) return { stages, opened, models, pairs, notes, dispose };
    const { independent } = options;
    const other = independent === undefined ? undefined : await openJudge(stages, independent, tokenizer, { compute });
    const { images, measures, paths } = await lookedAt(device, options.heldOut, side);
    const measured = await measures(stages);
    const validation = await Validation.create(
      device,
      stages.parameters,
      {
        ...{
          trainee,
          caption,
          captions: paths && captionsFor(paths, 'held-out photographs'),
          reward,
          independent: other && asReward(other),
        },
        ...{ distances: { ...distances, ...measured.distances }, others: measured.others },
      },
      { held: images, side },
    );
    held(validation);
    return { stages, opened, models: { ...models, validation }, pairs, notes, dispose };
  } catch (error) {
    dispose();
    throw error;
  }
}

/** Of the files of all networks, by what they are. */
async function digestsOf(
  { sources }: OpenedTrainee,
  { judge, independent, lpips = [] }: SetupOptions,
): Promise<Record<string, string>> {
  const given = { judge, independent, ...Object.fromEntries(lpips.map((path, i) => [`lpips.${i}`, path])) };
  const digests: Record<string, string> = {};
  for (const [name, path] of Object.entries({ ...sources, ...given })) {
    if (path !== undefined) digests[name] = await sampledDigest(await openWeights(path));
  }
  return digests;
}

/** Images to look at: crops of a folder, always the same, unless they are there already. */
async function lookedAt(device: Device, from: HeldOutFolder | HeldOut, size: number): Promise<HeldOut> {
  if ('images' in from) return from;
  const { folder, looks, aligned } = from;
  using looked = await FolderPairs.open(device, [{ folder, weight: 1 }], { size, seed: 0, centred: aligned });
  const { paths } = looked;
  const images = await looked.batch(0, looks);
  const measures: HeldOut['measures'] = async ({ parameters }) => {
    return { distances: aligned ? await faceDistances(parameters) : {} };
  };
  return { images, paths, measures };
}

export interface JudgeOptions extends Precision {
  /** What of it may move; nothing where it is left out. */
  readonly unlocked?: Unlocked | 'all';
}

/** Loads a face reward model. */
export async function openJudge(
  { parameters }: Stages,
  path: string,
  tokenizer: ClipTokenizer,
  { unlocked, compute }: JudgeOptions = {},
): Promise<CLIP> {
  const { clip, config, file } = await openClip(path, compute);
  if (tokenizer.size !== config.text_cfg.vocab_size) {
    const both = `the tokenizer has ${tokenizer.size} tokens, the table of ${path} ${config.text_cfg.vocab_size} rows`;
    throw new ReflError('ERR_OPTION', both);
  }
  clip.train(unlocked === 'all');
  if (unlocked !== undefined && unlocked !== 'all') unlock(clip, unlocked);
  widenTrained(clip);
  await loadWeights(parameters, clip, file);
  return clip;
}
