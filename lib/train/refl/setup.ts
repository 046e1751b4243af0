import { FolderPairs, type Source } from '../../data/pairs.ts';
import { ReflError } from '../../errors.ts';
import { affine, sqrt, square, sub } from '../../graph/ops/elementwise.ts';
import { mean } from '../../graph/ops/reduce.ts';
import type { Tensor } from '../../graph/tensor.ts';
import { ssim } from '../../metrics/fidelity.ts';
import { loadLpips } from '../../metrics/lpips.ts';
import type { CLIP } from '../../models/clip.ts';
import { LPIPS } from '../../models/lpips.ts';
import { Stages } from '../../restore/stages.ts';
import { clipOf } from '../../reward/clip_file.ts';
import { type Unlocked, unlock } from '../../reward/frm.ts';
import { frmReward, type Judged, type Reward } from '../../reward/reward.ts';
import type { Device } from '../../runtime/index.ts';
import { ClipTokenizer } from '../../text/tokenizer.ts';
import { loadWeights } from '../../weights/load.ts';
import { openWeights } from '../../weights/open.ts';
import { lpipsLoss, paperWeights, rewardLoss, type Weighted, waveletLoss } from './objective.ts';
import { type OpenedTrainee, openTrainee, type TraineeOptions } from './open.ts';
import type { Caption, ReflModels, StepImages } from './session.ts';
import { Validation, type ValidationModels } from './validation.ts';

export interface SetupOptions extends TraineeOptions {
  /** Name or path of the restorer. */
  readonly model: string;
  /** Files of the face reward model, of CLIP's tokenizer, and of LPIPS, without which that loss is left out. */
  readonly judge: string;
  readonly tokenizer: string;
  readonly lpips?: readonly string[];
  /** Another face reward model, which nobody learns from: the watch asks it, too. */
  readonly independent?: string;
  /** What of the judge may move. */
  readonly unlocked: Unlocked | 'all';
  /** What pictures show by their paths, where it is known; and the caption of all others. */
  readonly captionOf?: (path: string) => string | undefined;
  readonly caption: string;
  /** Weights of the losses of images: {@link paperWeights} by default. */
  readonly lossWeights?: Readonly<Record<'reward' | 'lpips' | 'wavelet', number>>;
  /** Makes further losses of images, by name. */
  readonly furtherLosses?: (stages: Stages) => Promise<Readonly<Record<string, Weighted>>>;
  /** Folders of photographs to train on. */
  readonly photographs: readonly Source[];
  /** What is only looked at: so many crops of a folder of photographs, or images and how they are measured. */
  readonly heldOut?: { readonly folder: string; readonly looks: number } | HeldOut;
  readonly seed: number;
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

/** How far images are from their photographs in root mean square and in structure, [N]. */
export const plainDistances: Readonly<Record<string, (judged: Judged) => Tensor>> = {
  rmse: ({ images, targets }) => sqrt(affine(mean(square(sub(images, targets)), [1, 2, 3]), 1, 1e-12)),
  structure: ({ images, targets }) => affine(ssim(images, targets), -1, 1),
};

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
    const opened = await openTrainee(stages, options.model, options);
    held(opened.trainee);
    const notes: string[] = [];
    const tokenizer = await ClipTokenizer.load(options.tokenizer);
    const judge = await openJudge(stages, options.judge, tokenizer, options.unlocked);
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

    const asReward = (clip: CLIP): Reward => frmReward(clip, { antialias: options.compat !== 'official' });
    const { lossWeights: weights = paperWeights } = options;
    const reward = asReward(judge);
    const terms: Record<string, Weighted> = {
      reward: { weight: weights.reward, loss: rewardLoss(reward) },
      wavelet: { weight: weights.wavelet, loss: waveletLoss },
      ...(await options.furtherLosses?.(stages)),
    };
    const distances = { ...plainDistances };
    if (options.lpips?.length) {
      const lpips = new LPIPS().train(false);
      await loadLpips(parameters, lpips, await Promise.all(options.lpips.map(openWeights)));
      terms.lpips = { weight: weights.lpips, loss: lpipsLoss(lpips) };
      distances.lpips = ({ images, targets }) => lpips.forward(images, targets, { normalize: true }).distance;
    } else notes.push("without LPIPS's files its loss is left out");

    const { side, trainee } = opened;
    const pairs = held(await FolderPairs.open(device, options.photographs, { size: side, seed: options.seed }));
    const captions = captionsFor(pairs.paths, 'photographs');
    const models = { trainee, terms, judge, caption, captions };
    if (!options.heldOut) return { stages, opened, models, pairs, notes, dispose };
    const { independent } = options;
    const other = independent === undefined ? undefined : await openJudge(stages, independent, tokenizer, undefined);
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

/** Images to look at: crops of a folder, always the same, unless they are there already. */
async function lookedAt(device: Device, from: NonNullable<SetupOptions['heldOut']>, size: number): Promise<HeldOut> {
  if ('images' in from) return from;
  using looked = await FolderPairs.open(device, [{ folder: from.folder, weight: 1 }], { size, seed: 0 });
  const { paths } = looked;
  return { images: await looked.batch(0, from.looks), paths, measures: async () => ({ distances: {} }) };
}

/** Loads a face reward model; `unlocked` says what of it may move, nothing where it is left out. */
export async function openJudge(
  { parameters }: Stages,
  path: string,
  tokenizer: ClipTokenizer,
  unlocked: Unlocked | 'all' | undefined,
): Promise<CLIP> {
  const file = await openWeights(path);
  const { clip, config } = clipOf(file);
  if (tokenizer.size !== config.text_cfg.vocab_size) {
    const both = `the tokenizer has ${tokenizer.size} tokens, the table of ${path} ${config.text_cfg.vocab_size} rows`;
    throw new ReflError('ERR_OPTION', both);
  }
  clip.train(unlocked === 'all');
  if (unlocked !== undefined && unlocked !== 'all') unlock(clip, unlocked);
  await loadWeights(parameters, clip, file);
  return clip;
}
