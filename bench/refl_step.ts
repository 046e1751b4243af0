// What a step of training by rewards takes: npm run bench -- refl-step. Operations and bytes of each part at full size, counted in
// the graphs that are compiled; and how long a step of a small DiffBIR takes here, as it is and as the public code has it.

import { smallRefl } from '../lib/bench/refl_small.ts';
import { reflStepWork, type StepPart } from '../lib/bench/refl_step.ts';
import { median } from '../lib/bench/timing.ts';
import { openDevice } from '../lib/runtime/index.ts';
import { paperWalk } from '../lib/train/refl/rollout.ts';
import { type Compat, paperJudge } from '../lib/train/refl/session.ts';

/** Operations a second that the best bf16 products reach on an H100. */
const reached = 790e12;
const batches = 4;
const rounds = 3;

const paper = { side: 512, batch: 1, accumulate: batches, recompute: false, compute: 'bf16' } as const;
const row = (cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`;
const total = (parts: readonly StepPart[], of: 'flops' | 'bytes'): number =>
  parts.reduce((sum, part) => sum + part[of], 0);

export async function printReflStep(threads: number): Promise<void> {
  for (const model of ['diffbir-v1', 'osediff']) {
    const parts = await reflStepWork(model, { ...paper, walk: paperWalk, moving: paperJudge });
    console.log(`\n${model}, one image of 512 x 512, bf16\n`);
    console.log(row(['part', 'TFLOP', 'GB, nothing fused', 'ms at 790 TFLOP/s']));
    console.log(row(['---', '--:', '--:', '--:']));
    const sum = { name: 'all', flops: total(parts, 'flops'), bytes: total(parts, 'bytes') };
    for (const { name, flops, bytes } of [...parts, sum]) {
      const least = (1e3 * flops) / reached;
      console.log(row([name, (flops / 1e12).toFixed(3), (bytes / 1e9).toFixed(1), least.toFixed(2)]));
    }
  }
  console.log(
    `\ndiffbir-v1, an update of ${batches} images with the judge's share, and the images that it learns from\n`,
  );
  console.log(row(['', 'TFLOP', 'images that count', 'TFLOP an image that counts', 'small DiffBIR here, s', 'ratio']));
  console.log(row(['---', '--:', '--:', '--:', '--:', '--:']));
  const seconds = await timeSmall(threads);
  for (const [name, compat] of modes) {
    const parts = await reflStepWork('diffbir-v1', { ...paper, walk: paperWalk, moving: paperJudge, compat });
    const judged = compat ? 1 : batches;
    const flops = parts.reduce((sum, { name, flops }) => {
      return sum + flops * (name === "judge's update" ? judged / paperJudge.every : batches);
    }, 0);
    const counts = compat ? 1 : batches;
    const cells = [(flops / 1e12).toFixed(1), counts, (flops / counts / 1e12).toFixed(1), seconds[name].toFixed(3)];
    console.log(row([name, ...cells, (seconds[name] / seconds.corrected).toFixed(2)]));
  }
}

const modes: readonly (readonly [string, Compat | undefined])[] = [
  ['corrected', undefined],
  ['official', 'official'],
];

/** Median seconds of an update of a small DiffBIR, both ways in turns. */
async function timeSmall(threads: number): Promise<Record<string, number>> {
  using device = await openDevice('cpu', { threads });
  const times: Record<string, number[]> = {};
  const runs: Record<string, Awaited<ReturnType<typeof smallRefl>>> = {};
  for (const [name, compat] of modes) runs[name] = await smallRefl(device, { accumulate: batches, compat });
  for (let round = 0; round <= rounds; round++) {
    for (const [name, run] of Object.entries(runs)) {
      const start = performance.now();
      await run.step(round);
      if (round) times[name] = [...(times[name] ?? []), (performance.now() - start) / 1000];
    }
  }
  for (const run of Object.values(runs)) run.dispose();
  return Object.fromEntries(Object.entries(times).map(([name, values]) => [name, median(values)]));
}
