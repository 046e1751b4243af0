// A made-up data set that a tiny CLIP can learn: of two pictures the lighter one is preferred.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import sharp from 'sharp';
import type { FrmOptions } from '../../lib/train/frm.ts';
import { tinyClip, writeTinyClip, writeTokenizer } from '../reward/support.ts';
import { random } from '../support/random.ts';
import { lines } from './preference.ts';

/** Writes `people` times four pictures and their six labelled pairs, of which every fourth person is held out. */
export async function writeLightFaces(folder: string, people = 16): Promise<string> {
  const { next } = random(5);
  await mkdir(join(folder, 'faces'), { recursive: true });
  const records: object[] = [];
  for (let p = 0; p < people; p++) {
    const light = Array.from({ length: 4 }, () => 40 + 170 * next());
    for (const [i, level] of light.entries()) {
      const data = Uint8Array.from({ length: 12 * 12 * 3 }, () => level + 30 * next());
      await sharp(data, { raw: { width: 12, height: 12, channels: 3 } })
        .png()
        .toFile(join(folder, 'faces', `${p}-${i}.png`));
    }
    for (let i = 0; i < 4; i++) {
      for (let j = i + 1; j < 4; j++) {
        const share = light[i] > light[j] ? 0.95 : 0.05;
        records.push({
          ...{ pair: `${p}-${i}${j}`, person: `p${p}`, a: `faces/${p}-${i}.png`, b: `faces/${p}-${j}.png` },
          ...{ caption: p % 2 ? 'low' : 'lower face', margin: light[i] - light[j] },
          ...(p % 4 === 3
            ? { share: Math.round(share), source: 'people', split: 'heldout' }
            : { share, source: 'svm', split: 'train' }),
        });
      }
    }
  }
  const path = join(folder, 'labels.jsonl');
  await writeFile(path, lines(records));
  return path;
}

/** Options that train a tiny CLIP, from fixed weights, on those pairs within seconds. */
export async function tinyOptions(folder: string): Promise<FrmOptions> {
  return {
    from: await writeTinyClip(join(folder, 'clip.safetensors'), undefined, tinyClip),
    tokenizer: writeTokenizer(folder),
    out: join(folder, 'run'),
    ...{ steps: 40, batch: 6, accumulate: 2, lr: 0.01, warmup: 5, weightDecay: 0.35, seed: 9 },
    ...{
      unlocked: { imageGroups: 2, textLayers: 1 },
      preprocessing: 'hps',
      turn: false,
      average: false,
      recompute: false,
    },
    ...{ dtype: 'f32', onlyPeople: false, evalEvery: 10, patience: Infinity, checkpointEvery: 7 },
  };
}
