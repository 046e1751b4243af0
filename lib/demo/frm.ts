import { join } from 'node:path';
import { readChoices, readComparisons, shareOf } from '../data/comparisons.ts';
import { toJsonLines } from '../data/jsonl.ts';
import { measuresOf, readMeasures } from '../data/measures.ts';
import { ReflError } from '../errors.ts';
import { judgeByReward } from '../eval/reward_judge.ts';
import { makeFolder, writeAtomic } from '../image/files.ts';
import { makeCandidates } from '../restore/candidates.ts';
import { openDevice } from '../runtime/index.ts';
import { byteTokenizer } from '../text/vocabulary.ts';
import { trainFrm } from '../train/frm.ts';
import { labelPairs, writeLabels } from '../train/labels.ts';
import { searchPreference } from '../train/preference_search.ts';
import { type Sample, savePreferenceModel } from '../train/preference_svm.ts';
import { DemoRestorers, faceOf } from './candidates.ts';
import { clearFaces } from './faces.ts';
import { type Input, makeInputs } from './inputs.ts';
import { measureRestored } from './measure.ts';
import { type FrmReport, reportFrm } from './report.ts';
import { type DemoStage, demoCaption, type FrmDemoSettings } from './settings.ts';

export interface FrmDemoOptions extends FrmDemoSettings {
  /** Photographs of people; those of the demonstration of @vladmandic/face-api. */
  readonly photographs: readonly string[];
  readonly out: string;
  /** As {@link openDevice} takes it. */
  readonly device: string;
  readonly threads?: number;
  readonly signal?: AbortSignal;
}

export interface FrmDemoEvents {
  /** A stage does number `done` of `total`; the first call of a stage comes as it begins. */
  readonly onProgress?: (stage: DemoStage, done: number, total: number, label?: string) => void;
}

/** Names of the files in the demo's folder. */
const files = {
  pairs: join('candidates', 'pairs.jsonl'),
  measures: 'measures.jsonl',
  distances: 'distances.jsonl',
  choices: 'choices.jsonl',
  svm: 'svm.json',
  labels: 'labels.jsonl',
  tokenizer: 'tokenizer.json',
  frm: 'frm',
} as const;

/**
 * A whole small run from photographs to a face reward model, through the same files as `data`, `train` and `label` write:
 * faces, degraded inputs, four restorations each, choices by a rule that stands in for people, the classifier that labels the
 * rest, a small CLIP drawn anew and trained on all of it, and a report on people that nothing was trained on. Started again,
 * it goes on where it was stopped. Throws what its parts throw.
 */
export async function demoFrm(
  options: FrmDemoOptions,
  { onProgress = () => {} }: FrmDemoEvents = {},
): Promise<FrmReport> {
  const { out, device: kind, threads, signal, seed, perFace, metrics, svm: grid } = options;
  const size = 256;
  const path = (name: keyof typeof files): string => join(out, files[name]);
  const seconds: Partial<Record<DemoStage, number>> = {};
  const stage = async <T>(name: DemoStage, work: (progress: (d: number, t: number) => void) => Promise<T>) => {
    onProgress(name, 0, 1);
    const start = performance.now();
    const result = await work((done, total) => onProgress(name, done, total));
    seconds[name] = (performance.now() - start) / 1000;
    return result;
  };

  await makeFolder(out);
  using device = await openDevice(kind, { threads });
  const faces = await stage('faces', () => {
    const { photographs, heldOut, morphs } = options;
    return clearFaces(device, { out: join(out, 'faces'), photographs, heldOut, morphs, seed, signal });
  });
  const inputs = await stage('inputs', (onDone) =>
    makeInputs(device, faces, { out: join(out, 'inputs'), counts: options.counts, size, seed, signal, onDone }),
  );
  await stage('candidates', async (onDone) => {
    using restorers = await DemoRestorers.load(device);
    const named = inputs.map(({ id, person, degraded }) => ({ id, person, path: degraded }));
    const failed = (_: unknown, error: unknown): void => {
      throw error;
    };
    const folder = join(out, 'candidates');
    await makeCandidates(named, restorers.candidates, { out: folder, perFace, seed, signal, onDone, onFailed: failed });
  });
  const { value: pairs } = await readComparisons(path('pairs'));
  const inputOf = new Map(inputs.map((input) => [input.id, input]));
  const ofPicture = (picture: string): Input => inputOf.get(faceOf(picture))!;
  const isMeasured = (picture: string): boolean => {
    const { kind, number } = ofPicture(picture);
    return kind === 'heldout' || number < options.measured[kind];
  };
  const distances = await stage('measures', async (onDone) => {
    const restored = [...new Set(pairs.flatMap(({ a, b }) => [a, b]))];
    const pictures = restored.map((image) => {
      return { image, clean: ofPicture(image).clean, metrics: isMeasured(image) };
    });
    pictures.sort((x, y) => (x.clean < y.clean ? -1 : Number(x.clean > y.clean)));
    return measureRestored(device, pictures, {
      ...{ out: path('measures'), distances: path('distances'), metrics, size, device: kind, threads, signal, onDone },
    });
  });
  const distanceOf = (picture: string): number => distances.get(picture)!;
  const comparisons = pairs.filter(({ a, b }) => distances.has(a) && distances.has(b));

  // What people would say of the morphs that are measured is the classifier's to tell.
  const asked = comparisons.filter(({ a }) => !isMeasured(a) || ofPicture(a).kind !== 'morph');
  const choices = asked.map(({ pair, a, b }) => {
    const gap = distanceOf(b) - distanceOf(a);
    return { pair, annotator: 'feature-distance', choice: gap > 0 ? 'a' : gap < 0 ? 'b' : 'tie' };
  });
  await writeAtomic(path('choices'), toJsonLines(choices));
  const { value: verdicts } = await readChoices(path('choices'), comparisons);
  const { value: measures } = await readMeasures(path('measures'));

  const heldOut = [...new Set(inputs.filter((input) => input.kind === 'heldout').map(({ person }) => person))].sort();
  const { report: svm, labels } = await stage('classifier', async (onDone) => {
    const samples = asked.flatMap((comparison): Sample[] => {
      const values = measuresOf(measures, comparison);
      const { pair, person } = comparison;
      return values ? [{ pair, person, ...values, share: shareOf(verdicts.get(pair)!)! }] : [];
    });
    const search = { ...grid, holdout: heldOut, seed };
    const found = await searchPreference(measures.metrics, samples, search, { signal, onTrained: onDone });
    const model = { ...found, metrics: measures.metrics };
    await savePreferenceModel(path('svm'), model);
    const labels = labelPairs(comparisons, verdicts, measures, model);
    await writeLabels(path('labels'), labels);
    return { report: found.report, labels };
  });

  await writeAtomic(path('tokenizer'), Buffer.from(byteTokenizer()));
  const trained = await stage('reward model', async (onDone) => {
    const { clip, steps, batch, lr, warmup, weightDecay } = options;
    const result = await trainFrm(
      device,
      labels,
      {
        ...{ from: clip, tokenizer: path('tokenizer'), out: path('frm'), caption: demoCaption },
        ...{ steps, batch, lr, warmup, weightDecay, seed, accumulate: 1, unlocked: 'all', preprocessing: 'hps' },
        ...{ average: false, recompute: false, dtype: 'f32', onlyPeople: false },
        // Nothing is chosen by held-out people: the end counts, and is judged once.
        ...{ evalEvery: steps, patience: Infinity, checkpointEvery: 100 },
      },
      { signal, onStep: ({ step }) => onDone(step, steps) },
    );
    if (result) return result;
    signal?.throwIfAborted();
    throw new ReflError('ERR_OPTION', 'training ended early');
  });
  return stage('report', async (onDone) => {
    const held = labels.filter(({ split }) => split === 'heldout');
    const judge = await judgeByReward(held, {
      ...{ name: 'frm', weights: trained.last.path, tokenizer: path('tokenizer'), caption: demoCaption },
      ...{ device: kind, threads, signal, batch: 4, onProgress: (fraction: number) => onDone(fraction, 1) },
    });
    return reportFrm({
      ...{ out, inputs, labels, verdicts, judge, svm, distanceOf, options, seconds, weights: trained.last.path },
    });
  });
}
