import { join } from 'node:path';
import { shareOf } from '../data/comparisons.ts';
import { ReflError } from '../errors.ts';
import { writeAtomic } from '../image/files.ts';
import { type Device, openDevice } from '../runtime/index.ts';
import { byteTokenizer } from '../text/vocabulary.ts';
import { trainFrm } from '../train/frm.ts';
import { type Label, writeLabels } from '../train/labels.ts';
import { chooseByRule, type DemoPairs, type FrmDemoEvents, type FrmDemoOptions, makePairs, Stages } from './pairs.ts';
import { demoCaption } from './settings.ts';
import { writeStart } from './start.ts';

/** A reward model in a folder, as RewardModel takes it. */
export interface DemoJudge {
  readonly weights: string;
  readonly tokenizer: string;
  readonly caption: string;
}

/**
 * Trains a small face reward model as {@link demoFrm} does, but on the rule's labels alone, without metrics, classifier and
 * report: with other `people` and another `seed`, a judge that is independent of the shipped one. Started again, it goes on.
 * Throws what its parts throw.
 *
 *     const people = ['sample1', 'sample2'];
 *     await trainDemoJudge({ ...frmDemo, people, heldOut: ['sample6'], seed: 2, photographs, out, device: 'cpu' });
 */
export async function trainDemoJudge(options: FrmDemoOptions, events: FrmDemoEvents = {}): Promise<DemoJudge> {
  const { out, device: kind, threads } = options;
  const stages = new Stages(events);
  using device = await openDevice(kind, { threads });
  const measured = { train: 0, morph: 0, heldout: 0 };
  const pairs = await makePairs(device, { ...options, measured }, stages);
  const verdicts = await chooseByRule(out, pairs.comparisons, pairs);
  const labels = pairs.comparisons.map((comparison): Label => {
    const split = pairs.inputOf(comparison.a).kind === 'heldout' ? 'heldout' : 'train';
    return { ...comparison, share: shareOf(verdicts.get(comparison.pair)!)!, source: 'people', margin: 0, split };
  });
  if (options.originals) labels.push(...originalsOf(labels, pairs));
  await writeLabels(join(out, 'labels.jsonl'), labels);
  return await trainReward(device, labels, options, stages);
}

/** A pair of each restoration and its original, which is preferred; which of them is A takes turns. */
function originalsOf(labels: readonly Label[], { inputOf }: DemoPairs): Label[] {
  const ofPicture = new Map(labels.flatMap((label) => [label.a, label.b].map((picture) => [picture, label] as const)));
  return [...ofPicture].map(([restored, label], i) => {
    const { clean } = inputOf(restored);
    const [a, b] = i % 2 ? [clean, restored] : [restored, clean];
    return { ...label, pair: `${label.pair}-original-${i}`, a, b, share: i % 2 };
  });
}

/** Draws a small CLIP and trains on labelled pairs all of it but its patches; the last stage of a run before its report. */
export async function trainReward(
  device: Device,
  labels: readonly Label[],
  { out, signal, clip, steps, batch, lr, warmup, weightDecay, seed }: FrmDemoOptions,
  stages: Stages,
): Promise<DemoJudge> {
  const tokenizer = join(out, 'tokenizer.json');
  await writeAtomic(tokenizer, Buffer.from(byteTokenizer()));
  const start = join(out, 'start.safetensors');
  await writeStart(device, start, clip, seed);
  const unlocked = { imageGroups: clip.vision_cfg.layers + 1, textLayers: clip.text_cfg.layers };
  return stages.run('reward model', async (onDone) => {
    const result = await trainFrm(
      device,
      labels,
      {
        ...{ from: start, tokenizer, out: join(out, 'frm'), caption: demoCaption },
        ...{ steps, batch, lr, warmup, weightDecay, seed, accumulate: 1, unlocked, preprocessing: 'hps' },
        ...{ turn: true, average: false, recompute: false, dtype: 'f32', onlyPeople: false },
        // Nothing is chosen by held-out people: the end counts, and is judged once.
        ...{ evalEvery: steps, patience: Infinity, checkpointEvery: 100 },
      },
      { signal, onStep: ({ step }) => onDone(step, steps) },
    );
    if (result) return { weights: result.last.path, tokenizer, caption: demoCaption };
    signal?.throwIfAborted();
    throw new ReflError('ERR_OPTION', 'training ended early');
  });
}
