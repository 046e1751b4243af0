// Made-up people, pictures and choices, with a known rule behind them.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { picture } from '../restore/support.ts';
import { random } from '../support/random.ts';

export const metricNames = ['sharpness', 'noise', 'likeness', 'light', 'size', 'weather'];

export interface World {
  pairs: { pair: string; person: string; a: string; b: string; caption: string }[];
  choices: { pair: string; annotator: string; choice: string }[];
  metrics: { image: string; metrics: Record<string, number> }[];
}

/**
 * Four pictures of every person and their six pairs. People like sharpness and likeness, the second half as much, and
 * dislike noise that exceeds 1, which no line can tell; the rest is chance. The last pairs of each person have no choice where
 * `labelled` is less than 6.
 */
export function world(people: number, { seed = 1, labelled = 6, noise = 0.2 } = {}): World {
  const { next } = random(seed);
  const normal = (): number => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  const made: World = { pairs: [], choices: [], metrics: [] };
  for (let p = 0; p < people; p++) {
    const values = Array.from({ length: 4 }, () => metricNames.map(normal));
    values.forEach((row, i) => {
      const metrics = Object.fromEntries(metricNames.map((name, k) => [name, row[k]]));
      made.metrics.push({ image: `pictures/p${p}-${i}.png`, metrics });
    });
    const worth = values.map(([sharpness, grain, likeness]) => sharpness + likeness / 2 - 2 * Math.max(0, grain - 1));
    let k = 0;
    for (let i = 0; i < 4; i++) {
      for (let j = i + 1; j < 4; j++) {
        const pair = `p${p}-${i}${j}`;
        const pictures = { a: `pictures/p${p}-${i}.png`, b: `pictures/p${p}-${j}.png` };
        made.pairs.push({ pair, person: `p${p}`, ...pictures, caption: p % 2 ? 'low' : 'lower face' });
        const choice = worth[i] - worth[j] + noise * normal() > 0 ? 'a' : 'b';
        if (k++ < labelled) made.choices.push({ pair, annotator: 'ann', choice });
      }
    }
  }
  return made;
}

export const lines = (records: readonly object[]): string =>
  records.map((record) => `${JSON.stringify(record)}\n`).join('');

export interface WorldFiles {
  pairs: string;
  choices: string;
  metrics: string;
}

/** Writes a world's files, and a picture (the same for all) where it names one. */
export async function writeWorld(folder: string, { pairs, choices, metrics }: World): Promise<WorldFiles> {
  const files = {
    pairs: join(folder, 'pairs.jsonl'),
    choices: join(folder, 'choices.jsonl'),
    metrics: join(folder, 'metrics.jsonl'),
  };
  await mkdir(join(folder, 'pictures'), { recursive: true });
  const png = await picture(12, 12).png().toBuffer();
  for (const { image } of metrics) {
    await mkdir(dirname(join(folder, image)), { recursive: true });
    await writeFile(join(folder, image), png);
  }
  await writeFile(files.pairs, lines(pairs));
  await writeFile(files.choices, lines(choices));
  await writeFile(files.metrics, lines(metrics));
  return files;
}
