import { access } from 'node:fs/promises';
import { availableParallelism } from 'node:os';
import { basename, join } from 'node:path';
import type { CommandModule } from 'yargs';
import { type Degradation, type DegradeRanges, Degrader, defaultRanges, drawDegradation } from '../data/degrade.ts';
import { Draws } from '../data/draws.ts';
import { JsonLinesFile } from '../data/jsonl.ts';
import { ReflError } from '../errors.ts';
import { writeAtomic } from '../image/files.ts';
import { decodeImage, encodePng } from '../image/picture.ts';
import { openDevice } from '../runtime/index.ts';
import { UsageError } from './failure.ts';
import { prepare } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions, type FileArgs, fileOptions, inputs } from './options.ts';

interface Args extends FileArgs, Record<keyof DegradeRanges, readonly number[]> {
  seed: number;
}

const range = (describe: string, key: keyof DegradeRanges) =>
  ({ describe, type: 'number', array: true, nargs: 2, requiresArg: true, default: [...defaultRanges[key]] }) as const;

const ranges = {
  sigma: range('bounds of the blur, in pixels', 'sigma'),
  down: range('bounds of the factor by which pictures are made smaller in between', 'down'),
  noise: range('bounds of the noise, in 255ths', 'noise'),
  jpeg: range('bounds of the JPEG quality', 'jpeg'),
};

export const degradeCommand: CommandModule<object, Args> = {
  command: 'degrade <inputs..>',
  describe: 'damage pictures as training does: blur, reduction, noise, JPEG, enlargement to the same size',
  builder: (yargs) =>
    yargs.positional('inputs', inputs).options({
      ...fileOptions,
      ...ranges,
      seed: {
        requiresArg: true,
        describe: 'of the damage, which depends on it and the name of the file alone',
        type: 'number',
        default: 0,
      },
      ...deviceOptions,
    }),
  handler: degrade,
};

async function degrade({ inputs, out, json, seed, device, threads, sigma, down, noise, jpeg }: Args): Promise<void> {
  if (!Number.isSafeInteger(seed)) throw new ReflError('ERR_OPTION', `seed must be a whole number, got ${seed}`);
  const within = { sigma: bounds('sigma', sigma, 0), down: bounds('down', down, 1), noise: bounds('noise', noise, 0) };
  const drawn: DegradeRanges = { ...within, jpeg: bounds('jpeg', jpeg, 1, 100) };
  const { files, names, report } = await prepare(inputs, out, json, ['.png']);
  if (!files.length) return;
  await using manifest = await JsonLinesFile.open(join(out, 'degradations.jsonl'));
  if (manifest.cut)
    report.progress.log(`refl-native: ${join(out, 'degradations.jsonl')}: a line that was cut off is removed`);
  const known = new Map(manifest.lines.map((line) => [line.record.image, line]));
  using opened = await openDevice(device, { threads });
  using degrader = new Degrader(opened);

  const work = async (input: string): Promise<Result> => {
    const output = `${names.get(input)}.png`;
    const image = basename(output);
    const degradation = drawDegradation(new Draws(seed, ...Buffer.from(basename(names.get(input)!))), drawn);
    const line = known.get(image);
    if (line && !isSame(line.record, degradation)) {
      throw new UsageError(`${line.where}: ${image} was damaged otherwise: give the same options, or another folder`);
    }
    if (line && (await exists(output))) return { output, record: line.record, notes: [] };
    const { width, height, data, notes } = await decodeImage(input);
    const damaged = await degrader.degrade({ width, height, data }, degradation);
    const pixels = Uint8ClampedArray.from(damaged.image, (v) => 255 * v);
    await writeAtomic(output, await encodePng({ width, height, data: new Uint8Array(pixels.buffer) }));
    return { output, record: { image, source: input, width, height, ...degradation }, notes };
  };
  // While one is computed others are read, compressed and written.
  const abreast = availableParallelism();
  for (let done = 0; done < files.length; done += abreast) {
    interrupted.throwIfAborted();
    const group = files.slice(done, done + abreast);
    report.progress.update(done, basename(group[0]));
    const results = await Promise.allSettled(group.map(work));
    for (const [i, result] of results.entries()) {
      if (result.status === 'rejected') {
        if (result.reason instanceof UsageError) throw result.reason;
        report.fail(group[i], result.reason);
        continue;
      }
      const { output, record, notes } = result.value;
      if (!known.has(record.image)) await manifest.append(record);
      for (const note of notes) report.note(group[i], note);
      report.done(group[i], { output, ...record });
    }
  }
  report.progress.clear();
}

interface Result {
  readonly output: string;
  /** What the manifest says. */
  readonly record: Readonly<Record<string, unknown>>;
  readonly notes: readonly string[];
}

/** Whether a line of a manifest tells of this very degradation. */
const isSame = (record: Readonly<Record<string, unknown>>, degradation: Degradation): boolean =>
  Object.entries(degradation).every(([key, value]) => JSON.stringify(record[key]) === JSON.stringify(value));

const exists = (path: string): Promise<boolean> =>
  access(path).then(
    () => true,
    () => false,
  );

/** Two bounds, or an ERR_OPTION that says what they must be. */
function bounds(
  name: string,
  [low, high]: readonly number[],
  least: number,
  most = Number.MAX_VALUE,
): readonly [number, number] {
  if (low >= least && low <= high && high <= most) return [low, high];
  const limits = most < Number.MAX_VALUE ? `from ${least} to ${most}` : `of at least ${least}`;
  throw new ReflError('ERR_OPTION', `${name} needs two numbers ${limits}, the smaller first, got ${low} ${high}`);
}
