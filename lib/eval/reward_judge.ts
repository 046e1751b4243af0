import { ReflError } from '../errors.ts';
import { RewardModel, type RewardModelOptions, type ScoreOptions } from '../reward/model.ts';
import type { Label } from '../train/labels.ts';
import type { Judge } from './agreement.ts';

export interface RewardJudgeOptions extends RewardModelOptions, ScoreOptions {
  readonly name: string;
  /** Caption of pairs that have none. */
  readonly caption?: string;
}

/** Has a reward model score the pictures of some pairs: its margin is the difference of the two cosines. Throws what scoring throws. */
export async function judgeByReward(labels: readonly Label[], options: RewardJudgeOptions): Promise<Judge> {
  const { name, caption, batch, signal, onProgress } = options;
  const textOf = (label: Label): string => {
    const text = label.caption ?? caption;
    if (text !== undefined) return text;
    throw new ReflError(
      'ERR_DATA',
      `the pair ${label.pair} has no caption: give one for all that have none (--caption)`,
    );
  };
  // Most pictures are in several pairs.
  const asked = new Map<string, { picture: string; text: string }>();
  const keyOf = (picture: string, text: string): string => JSON.stringify([picture, text]);
  for (const label of labels) {
    const text = textOf(label);
    for (const picture of [label.a, label.b]) asked.set(keyOf(picture, text), { picture, text });
  }
  const all = [...asked.values()];
  using model = await RewardModel.load(options);
  const scores = await model.score(
    all.map(({ picture }) => picture),
    all.map(({ text }) => text),
    { batch, signal, onProgress },
  );
  const found = new Map([...asked.keys()].map((key, i) => [key, scores[i].score]));
  const scoreOf = (picture: string, label: Label): number => found.get(keyOf(picture, textOf(label)))!;
  return { name, margin: (label) => scoreOf(label.a, label) - scoreOf(label.b, label) };
}
