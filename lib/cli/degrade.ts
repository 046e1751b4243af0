import { basename } from 'node:path';
import type { CommandModule } from 'yargs';
import { type DegradeRanges, Degrader, defaultRanges, drawDegradation } from '../data/degrade.ts';
import { Draws } from '../data/draws.ts';
import { ReflError } from '../errors.ts';
import { writeAtomic } from '../image/files.ts';
import { decodeImage, encodePng } from '../image/picture.ts';
import { openDevice } from '../runtime/index.ts';
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
        describe: 'the same seed and order of files give the same damage',
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
  using opened = await openDevice(device, { threads });
  using degrader = new Degrader(opened);
  for (const [i, input] of files.entries()) {
    interrupted.throwIfAborted();
    report.progress.update(i, basename(input));
    try {
      const { width, height, data, notes } = await decodeImage(input);
      const degradation = drawDegradation(new Draws(seed, i), drawn);
      const { image } = await degrader.degrade({ width, height, data }, degradation);
      const output = `${names.get(input)}.png`;
      const pixels = Uint8ClampedArray.from(image, (v) => 255 * v);
      await writeAtomic(output, await encodePng({ width, height, data: new Uint8Array(pixels.buffer) }));
      for (const note of notes) report.note(input, note);
      const { state: _, ...values } = degradation;
      report.done(input, { output, width, height, ...values });
    } catch (error) {
      report.fail(input, error);
    }
  }
  report.progress.clear();
}

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
