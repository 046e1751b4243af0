import { ReflError } from '../errors.ts';
import type { CLIP } from '../models/clip.ts';
import { Module, type Parameter } from '../nn/module.ts';

/** How much of a face reward model trains, counted from the outputs backwards. */
export interface Unlocked {
  /**
   * Groups of the image tower, of which there are two more than blocks: what stands before the blocks is the first, the
   * last block brings the norm behind it, and the projection is the last.
   */
  imageGroups?: number;
  /** Blocks of the text tower. The norm behind them, the projection and the logit scale train in any case. */
  textLayers?: number;
}

/** What DiffusionReward trains, of HPS v2's script: image blocks 13 to 31 and text blocks 13 to 23 of ViT-H/14. */
export const faceRewardModel: Required<Unlocked> = { imageGroups: 20, textLayers: 11 };

/** Marks what of `clip` trains and what does not, norms included, and returns how many values do. Throws ERR_OPTION. */
export function unlock(clip: CLIP, unlocked: Unlocked = {}): number {
  const { imageGroups, textLayers } = { ...faceRewardModel, ...unlocked };
  const { visual, transformer, token_embedding, positional_embedding } = clip;
  const blocks = visual.transformer.resblocks;
  const groups: (Module | Parameter)[][] = [
    [visual.conv1, visual.class_embedding, visual.positional_embedding, visual.ln_pre],
    ...blocks.slice(0, -1).map((block) => [block]),
    [...blocks.slice(-1), visual.ln_post],
    [visual.proj],
  ];
  checkCount('imageGroups', imageGroups, groups.length);
  checkCount('textLayers', textLayers, transformer.resblocks.length);
  clip.train(true);
  lock(groups.slice(0, groups.length - imageGroups).flat());
  lock([token_embedding, positional_embedding, ...transformer.resblocks.slice(0, -textLayers || undefined)]);
  let count = 0;
  for (const { value, trainable } of clip.namedParameters().values()) if (trainable) count += value.size;
  return count;
}

function lock(members: readonly (Module | Parameter)[]): void {
  for (const member of members) {
    if (member instanceof Module) member.train(false);
    else member.trainable = false;
  }
}

function checkCount(name: string, count: number, most: number): void {
  if (!(Number.isInteger(count) && count >= 0 && count <= most)) {
    throw new ReflError('ERR_OPTION', `${name} must be a whole number from 0 to ${most}, got ${count}`);
  }
}
