import { join } from 'node:path';
import { memoryUsage } from 'node:process';
import { smallParts, smallSide } from '../bench/refl_small.ts';
import { Draws } from '../data/draws.ts';
import { JsonLinesFile } from '../data/jsonl.ts';
import { FolderPairs } from '../data/pairs.ts';
import { div, mul, sqrt } from '../graph/ops/elementwise.ts';
import { concat, reshape } from '../graph/ops/layout.ts';
import { sum } from '../graph/ops/reduce.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import { makeFolder, writeAtomic } from '../image/files.ts';
import { Stages } from '../restore/stages.ts';
import { frmReward, type Reward } from '../reward/reward.ts';
import { shippedReward } from '../reward/shipped.ts';
import { type Device, evaluate, openDevice, type Parameters } from '../runtime/index.ts';
import { ClipTokenizer } from '../text/tokenizer.ts';
import { plainDistances } from '../train/refl/measures.ts';
import { objective, paperWeights, rewardLoss, waveletLoss } from '../train/refl/objective.ts';
import { trainRefl } from '../train/refl/refl.ts';
import { openJudge } from '../train/refl/setup.ts';
import { ControlLDMTrainee, type ControlLDMTraineeParts } from '../train/refl/trainees.ts';
import { Validation } from '../train/refl/validation.ts';
import type { Observation } from '../train/refl/watch.ts';
import { truncationPage } from './truncation_page.ts';

export interface TruncationSettings {
  /** Denoising steps from noise to image, and how many of them, from the end, have gradients. */
  readonly walk: number;
  readonly traced: readonly number[];
  /** Updates of each run, and images of each; updates between looks, and images that are looked at. */
  readonly steps: number;
  readonly batch: number;
  readonly lookEvery: number;
  readonly looks: number;
  readonly lr: number;
  /** Images whose gradients are compared. */
  readonly compared: number;
  readonly seed: number;
}

/** What takes minutes on two cores. */
export const truncationSettings: TruncationSettings = {
  ...{ walk: 8, traced: [1, 2, 4], steps: 40, batch: 1, lookEvery: 10, looks: 4, lr: 1e-3, compared: 6, seed: 7 },
};

/** How a gradient through the last steps fares beside that of the whole walk; means over the images compared. */
export interface Agreement {
  readonly traced: number;
  readonly cosine: number;
  /** Its length over the whole one's. */
  readonly length: number;
  /** Bytes of its program as planned; by how much the process grew with it, whatever else it did. */
  readonly planned: number;
  readonly measured: number;
  /** Of a gradient, without the walk before it. */
  readonly seconds: number;
}

/** What the images looked at came to in a run. */
export interface TruncatedRun {
  readonly traced: number;
  readonly looks: readonly { readonly step: number; readonly observation: Observation }[];
  readonly sheet: string;
}

export interface TruncationReport {
  readonly settings: TruncationSettings;
  readonly agreements: readonly Agreement[];
  readonly runs: readonly TruncatedRun[];
}

interface Workplace {
  /** A folder of photographs, and one for states and pictures. */
  readonly photographs: string;
  readonly out: string;
  readonly device: string;
  readonly threads?: number;
  readonly signal?: AbortSignal;
  readonly onProgress?: (stage: string, done: number, total: number) => void;
}

/**
 * Trains a small DiffBIR with random weights by the reward model that ships, with gradients through the last denoising steps, one run
 * a count; then compares such gradients with that of the whole walk, by the weights that the run of the first count came to.
 * Writes truncation.html and truncation.json into `out`. Started again, it goes on. Throws what {@link trainRefl} throws, and the signal's reason.
 */
export async function runTruncation(settings: TruncationSettings, workplace: Workplace): Promise<TruncationReport> {
  const { out, device: kind, threads } = workplace;
  await makeFolder(out);
  using device = await openDevice(kind, { threads });
  const runs: TruncatedRun[] = [];
  let agreements: Agreement[] = [];
  // The first count comes last: its weights are compared by.
  for (const traced of [...settings.traced].reverse()) {
    const made = await train(device, settings, traced, workplace);
    try {
      runs.unshift(made.run);
      if (traced === settings.traced[0]) agreements = await compare(device, settings, made, workplace);
    } finally {
      made.dispose();
    }
  }
  const report = { settings, agreements, runs };
  await writeAtomic(join(out, 'truncation.json'), Buffer.from(`${JSON.stringify(report, null, 1)}\n`));
  await writeAtomic(join(out, 'truncation.html'), Buffer.from(await truncationPage(report)));
  return report;
}

interface Trained {
  readonly run: TruncatedRun;
  readonly parameters: Parameters;
  readonly parts: Omit<ControlLDMTraineeParts, 'walk'>;
  readonly reward: Reward;
  readonly caption: Int32Array;
  dispose(): void;
}

const walkOf = ({ walk }: TruncationSettings, traced: number) => ({ steps: walk, traced, eta: 0, ends: 1 });

async function train(
  device: Device,
  settings: TruncationSettings,
  traced: number,
  { out, photographs, signal, onProgress }: Workplace,
): Promise<Trained> {
  const { steps, batch, lookEvery, looks, lr, seed } = settings;
  const folder = join(out, `traced-${traced}`);
  await makeFolder(folder);
  const stages = new Stages(device);
  try {
    const { parameters } = stages;
    const tokenizer = await ClipTokenizer.load(shippedReward.tokenizer);
    const judge = await openJudge(stages, shippedReward.weights, tokenizer);
    const reward = frmReward(judge);
    const { ids: caption } = tokenizer.encode([shippedReward.caption], judge.positional_embedding.value.shape[0]);
    const parts = await smallParts(device, parameters);
    using trainee = await ControlLDMTrainee.create(device, parameters, { ...parts, walk: walkOf(settings, traced) });
    using pairs = await FolderPairs.open(device, [{ folder: photographs, weight: 1 }], { size: smallSide, seed });
    const seen = { trainee, caption, reward, distances: plainDistances };
    const held = { held: await pairs.batch(steps + 1, looks), side: smallSide };
    using validation = await Validation.create(device, parameters, seen, held);
    await using file = await JsonLinesFile.open(join(folder, 'looks.jsonl'));
    const found = new Map(file.lines.map(({ record }) => [record.step as number, record.observation as Observation]));
    const terms = {
      reward: { weight: paperWeights.reward, loss: rewardLoss(reward) },
      wavelet: { weight: paperWeights.wavelet, loss: waveletLoss },
    };
    const stage = `${traced} of ${settings.walk} steps with gradients`;
    onProgress?.(stage, 0, steps);
    const options = { ...{ out: folder, steps, batch, accumulate: 1, lr, weightDecay: 0.01, seed }, drift: 0 };
    const done = await trainRefl(
      device,
      parameters,
      pairs,
      { trainee, terms, judge, caption, validation },
      { ...options, validateEvery: lookEvery, checkpointEvery: lookEvery },
      {
        signal,
        onStep: ({ step }) => onProgress?.(stage, step, steps),
        onObserved: async ({ step, observation }) => {
          if (!found.has(step)) await file.append({ step, observation });
          found.set(step, observation);
        },
      },
    );
    if (!done) signal?.throwIfAborted();
    const looked = [...found].sort(([a], [b]) => a - b).map(([step, observation]) => ({ step, observation }));
    const sheet = join(folder, `preview-${String(steps).padStart(8, '0')}.png`);
    return {
      run: { traced, looks: looked, sheet },
      parameters,
      parts,
      reward,
      caption,
      dispose: () => stages.dispose(),
    };
  } catch (error) {
    stages.dispose();
    throw error;
  }
}

async function compare(
  device: Device,
  settings: TruncationSettings,
  made: Trained,
  { photographs, onProgress }: Workplace,
): Promise<Agreement[]> {
  const { walk, traced, compared, seed } = settings;
  using pairs = await FolderPairs.open(device, [{ folder: photographs, weight: 1 }], { size: smallSide, seed });
  const { degraded, clean } = await pairs.batch(0, compared);
  const size = smallSide ** 2 * 3;
  const images = Array.from({ length: compared }, (_, i) => ({
    ...{ degraded: degraded.subarray(i * size, (i + 1) * size), targets: clean.subarray(i * size, (i + 1) * size) },
    draws: () => new Draws(seed, i),
  }));
  const results: { count: number; gradients: Float32Array[]; figures: Omit<Agreement, 'cosine' | 'length'> }[] = [];
  for (const count of [...traced, walk]) {
    onProgress?.('comparing gradients', results.length, traced.length + 1);
    using trainee = await ControlLDMTrainee.create(device, made.parameters, {
      ...made.parts,
      walk: walkOf(settings, count),
    });
    const before = memoryUsage.rss();
    using program = await device.compile(
      { outputs: { all: gradientOf(trainee, made) } },
      { parameters: made.parameters },
    );
    const gradients: Float32Array[] = [];
    let seconds = 0;
    for (const { degraded, targets, draws } of images) {
      const entered = await trainee.enter([{ degraded, draws: draws() }]);
      const started = performance.now();
      const { all } = await program.run({ ...entered, targets, captions: made.caption });
      seconds += (performance.now() - started) / 1000 / compared;
      gradients.push(all as Float32Array);
    }
    const measured = memoryUsage.rss() - before;
    results.push({ count, gradients, figures: { traced: count, planned: program.peakBytes, measured, seconds } });
  }
  const whole = results[results.length - 1].gradients;
  return Promise.all(
    results.map(async ({ gradients, figures }) => ({ ...figures, ...(await agreementOf(device, gradients, whole)) })),
  );
}

/** The gradient of the reward's and the wavelet's loss by all that trains, in one row. */
function gradientOf(trainee: ControlLDMTrainee, { reward, caption }: Trained): Tensor {
  const targets = input('targets', [1, smallSide, smallSide, 3]);
  const captions = input('captions', [1, caption.length], 'i32');
  const { images } = trainee.restore(1);
  const terms = {
    reward: { weight: paperWeights.reward, loss: rewardLoss(reward) },
    wavelet: { weight: paperWeights.wavelet, loss: waveletLoss },
  };
  const weights = [...trainee.module.namedParameters().values()].map(({ value }) => value);
  const gradients = objective({ images, targets, captions }, terms).gradients(weights);
  return concat(
    gradients.map((g) => reshape(g, [g.size])),
    0,
  );
}

/** Mean cosine and mean ratio of lengths of gradients and the whole ones, image by image. */
async function agreementOf(
  device: Device,
  gradients: readonly Float32Array[],
  whole: readonly Float32Array[],
): Promise<Pick<Agreement, 'cosine' | 'length'>> {
  const [a, b] = ['a', 'b'].map((name) => input(name, [whole[0].length]));
  const length = (x: Tensor): Tensor => sqrt(sum(mul(x, x)));
  const outputs = { cosine: div(sum(mul(a, b)), mul(length(a), length(b))), length: div(length(a), length(b)) };
  let [cosine, ratio] = [0, 0];
  for (const [i, own] of gradients.entries()) {
    const found = await evaluate(device, outputs, { a: own, b: whole[i] });
    cosine += Number(found.cosine[0]) / whole.length;
    ratio += Number(found.length[0]) / whole.length;
  }
  return { cosine, length: ratio };
}
