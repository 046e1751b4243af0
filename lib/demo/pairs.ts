import { join } from 'node:path';
import { type Comparison, readChoices, readComparisons, type Verdict } from '../data/comparisons.ts';
import { toJsonLines } from '../data/jsonl.ts';
import { makeFolder, writeAtomic } from '../image/files.ts';
import { makeCandidates } from '../restore/candidates.ts';
import type { Device } from '../runtime/index.ts';
import { DemoRestorers, faceOf } from './candidates.ts';
import { clearFaces } from './faces.ts';
import { type Input, makeInputs } from './inputs.ts';
import { measureRestored } from './measure.ts';
import { type DemoStage, demoSize, type FrmDemoSettings } from './settings.ts';

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
  readonly onProgress?: (stage: DemoStage, done: number, total: number) => void;
}

/** Runs stages one after another, says how far they are, and keeps how long each took. */
export class Stages {
  readonly seconds: Partial<Record<DemoStage, number>> = {};
  readonly #onProgress: NonNullable<FrmDemoEvents['onProgress']>;

  constructor({ onProgress = () => {} }: FrmDemoEvents) {
    this.#onProgress = onProgress;
  }

  async run<T>(name: DemoStage, work: (onDone: (done: number, total: number) => void) => Promise<T>): Promise<T> {
    this.#onProgress(name, 0, 1);
    const start = performance.now();
    const result = await work((done, total) => this.#onProgress(name, done, total));
    this.seconds[name] = (performance.now() - start) / 1000;
    return result;
  }
}

/** Pairs of restorations, and how far each picture is from its original. */
export interface DemoPairs {
  readonly inputs: readonly Input[];
  readonly comparisons: readonly Comparison[];
  /** By picture; smaller is nearer. */
  readonly distanceOf: (picture: string) => number;
  /** What a picture restores. */
  readonly inputOf: (picture: string) => Input;
}

/** Where {@link makePairs} writes the classifier's metrics. */
export const measuresPath = (out: string): string => join(out, 'measures.jsonl');

/**
 * From photographs to pairs: faces, degraded inputs, four restorations each, and distances to the originals, with
 * the metrics of those inputs that are measured. Started again, it goes on.
 */
export async function makePairs(device: Device, options: FrmDemoOptions, stages: Stages): Promise<DemoPairs> {
  const { out, device: kind, threads, signal, seed, perFace, metrics, measured } = options;
  await makeFolder(out);
  const faces = await stages.run('faces', () => clearFaces(device, { ...options, out: join(out, 'faces') }));
  const inputs = await stages.run('inputs', (onDone) => {
    const { counts } = options;
    return makeInputs(device, faces, { out: join(out, 'inputs'), counts, size: demoSize, seed, signal, onDone });
  });
  const candidates = join(out, 'candidates');
  const { output } = await stages.run('candidates', async (onDone) => {
    using restorers = await DemoRestorers.load(device);
    const named = inputs.map(({ id, person, degraded }) => ({ id, person, path: degraded }));
    const onFailed = (_: unknown, error: unknown): void => {
      throw error;
    };
    return await makeCandidates(named, restorers.candidates, {
      out: candidates,
      perFace,
      seed,
      signal,
      onDone,
      onFailed,
    });
  });
  const { value: pairs } = await readComparisons(output);
  const byId = new Map(inputs.map((input) => [input.id, input]));
  const inputOf = (picture: string): Input => byId.get(faceOf(picture))!;
  const distances = await stages.run('measures', (onDone) => {
    const restored = [...new Set(pairs.flatMap(({ a, b }) => [a, b]))];
    const pictures = restored.map((image) => {
      const input = inputOf(image);
      return { image, clean: input.clean, metrics: input.number < measured[input.kind] };
    });
    pictures.sort((x, y) => (x.clean < y.clean ? -1 : Number(x.clean > y.clean)));
    return measureRestored(device, pictures, {
      ...{ out: measuresPath(out), distances: join(out, 'distances.jsonl') },
      ...{ metrics, size: demoSize, device: kind, threads, signal, onDone },
    });
  });
  const comparisons = pairs.filter(({ a, b }) => distances.has(a) && distances.has(b));
  return { inputs, comparisons, distanceOf: (picture) => distances.get(picture)!, inputOf };
}

/** Writes what the rule says of pairs as an annotator's choices, and reads them back as `train svm` and `label` do. */
export async function chooseByRule(
  out: string,
  comparisons: readonly Comparison[],
  { distanceOf }: DemoPairs,
): Promise<ReadonlyMap<string, Verdict>> {
  const choices = comparisons.map(({ pair, a, b }) => {
    const gap = distanceOf(b) - distanceOf(a);
    return { pair, annotator: 'feature-distance', choice: gap > 0 ? 'a' : gap < 0 ? 'b' : 'tie' };
  });
  const path = join(out, 'choices.jsonl');
  await writeAtomic(path, toJsonLines(choices));
  return (await readChoices(path, comparisons)).value;
}
