import { basename } from 'node:path';
import type { CommandModule } from 'yargs';
import { writeAtomic } from '../image/files.ts';
import { decodeImage, encodeBeside } from '../image/picture.ts';
import { shippedModels } from '../restore/model.ts';
import { type Restored, Restorer } from '../restore/restorer.ts';
import { prepare } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions, type FileArgs, fileOptions, inputs } from './options.ts';

interface Args extends FileArgs {
  aligned: boolean;
  tile: boolean;
  model: string;
  batch: number;
  seed: number;
  compare: boolean;
}

export const restoreCommand: CommandModule<object, Args> = {
  command: 'restore <inputs..>',
  describe: 'restore the faces in pictures',
  builder: (yargs) =>
    yargs.positional('inputs', inputs).options({
      ...fileOptions,
      aligned: { describe: 'each picture is one face, already cropped and aligned', type: 'boolean', default: false },
      tile: {
        describe: 'restore all of a picture at its own resolution, in tiles, not only its faces',
        type: 'boolean',
        default: false,
      },
      compare: {
        describe: 'also write <name>.compare.png: before and after, side by side',
        type: 'boolean',
        default: false,
      },
      model: {
        requiresArg: true,
        describe: `${Object.keys(shippedModels).join(', ')}, or the path of a .safetensors file`,
        type: 'string',
        default: 'face-256',
      },
      seed: {
        requiresArg: true,
        describe: 'of the noise that a model draws; face-256 draws none',
        type: 'number',
        default: 0,
      },
      ...deviceOptions,
      batch: { requiresArg: true, describe: 'pictures, and faces, worked on at once', type: 'number', default: 1 },
    }),
  handler: restore,
};

async function restore({ inputs, out, json, compare, aligned, tile, seed, ...options }: Args): Promise<void> {
  const { files, names, report } = await prepare(inputs, out, json, compare ? ['.png', '.compare.png'] : ['.png']);
  if (!files.length) return;
  const finish = async (input: string, { image, figures }: Restored): Promise<void> => {
    const name = names.get(input)!;
    const written = { output: `${name}.png`, ...(compare && { compare: `${name}.compare.png` }) };
    await writeAtomic(written.output, image);
    if (written.compare)
      await writeAtomic(written.compare, await encodeBeside(await decodeImage(input), await decodeImage(image)));
    for (const note of figures.notes) report.note(input, note);
    report.done(input, { ...written, ...figures });
  };

  using restorer = await Restorer.load({ ...options, signal: interrupted });
  for (let done = 0; done < files.length; done += options.batch) {
    const group = files.slice(done, done + options.batch);
    const onProgress = (fraction: number): void =>
      report.progress.update(done + fraction * group.length, basename(group[0]));
    onProgress(0);
    const results = await restorer.restoreMany(group, { aligned, tile, seed, signal: interrupted, onProgress });
    for (const [i, result] of results.entries()) {
      if (result.status === 'rejected') report.fail(group[i], result.reason);
      else await finish(group[i], result.value).catch((error) => report.fail(group[i], error));
    }
  }
  report.progress.clear();
}
