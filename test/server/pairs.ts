import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Annotations } from '../../lib/data/annotations.ts';
import { readComparisons } from '../../lib/data/comparisons.ts';
import { picture } from '../restore/support.ts';

/** Writes pictures and a file of `count` pairs of them. Returns the file's path. */
export async function writePairs(folder: string, count: number, name = 'pairs.jsonl'): Promise<string> {
  for (const [i, picked] of ['a', 'b', 'input'].entries()) {
    await picture(32 + i, 32)
      .png()
      .toFile(join(folder, `${picked}.png`));
  }
  const pairs = Array.from({ length: count }, (_, i) => ({
    pair: `secret-model-${i}`,
    person: `p${i % 3}`,
    a: 'a.png',
    b: 'b.png',
    input: 'input.png',
  }));
  const path = join(folder, name);
  writeFileSync(path, pairs.map((pair) => `${JSON.stringify(pair)}\n`).join(''));
  return path;
}

export const comparisonsIn = async (path: string) => (await readComparisons(path)).value;

/** Names of the pairs that an annotator still has before them. */
export const namesLeft = (annotations: Annotations, annotator: string): string[] =>
  annotations.remaining(annotator).map(({ comparison }) => comparison.pair);
