import { mkdir } from 'node:fs/promises';
import type { CommandModule } from 'yargs';
import { ReflError } from '../errors.ts';
import { fileError, writeAtomic } from '../image/files.ts';
import { decodeImage, encodeBeside } from '../image/picture.ts';
import { shippedModels } from '../restore/model.ts';
import { type Restored, Restorer } from '../restore/restorer.ts';
import { FAILED, oneLine } from './failure.ts';
import { listInputs, outputNames } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { Progress } from './progress.ts';

interface Args {
  inputs: string[];
  out: string;
  aligned: boolean;
  model: string;
  device: string;
  threads?: number;
  batch: number;
  compare: boolean;
  json: boolean;
}

export const restoreCommand: CommandModule<object, Args> = {
  command: 'restore <inputs..>',
  describe: 'restore the faces in pictures',
  builder: (yargs) =>
    yargs
      .positional('inputs', { describe: 'image files, or folders of them', type: 'string', array: true, default: undefined, demandOption: true })
      .options({
        out: { alias: 'o', requiresArg: true, describe: 'folder for the results: <name>.png for each picture', type: 'string', demandOption: true },
        aligned: { describe: 'each picture is one face, already cropped and aligned', type: 'boolean', default: false },
        model: {
          requiresArg: true,
          describe: `${Object.keys(shippedModels).join(', ')}, or the path of a .safetensors file`,
          type: 'string',
          default: 'face-256',
        },
        device: { requiresArg: true, describe: 'auto, cpu, cuda or cuda:N', type: 'string', default: 'auto' },
        threads: { requiresArg: true, describe: 'threads of the CPU [all by default]', type: 'number' },
        batch: { requiresArg: true, describe: 'pictures, and faces, that are worked on at once', type: 'number', default: 1 },
        compare: { describe: 'also write <name>.compare.png: before and after, side by side', type: 'boolean', default: false },
        json: { describe: 'print one JSON object a picture', type: 'boolean', default: false },
      }),
  handler: restore,
};

async function restore({ inputs, out, compare, json, aligned, ...options }: Args): Promise<void> {
  const { files, failures } = await listInputs(inputs);
  const names = outputNames(files, out, compare ? ['.png', '.compare.png'] : ['.png']);
  await mkdir(out, { recursive: true }).catch((error) => {
    throw fileError('make the folder', out, error);
  });
  const progress = new Progress(files.length, 'pictures');
  const fail = (input: string, error: unknown): void => {
    process.exitCode = FAILED;
    progress.log(`refl-native: ${oneLine(error)}`);
    const code = error instanceof ReflError ? error.code : undefined;
    if (json) console.log(JSON.stringify({ input, error: { code, message: oneLine(error) } }));
  };
  const finish = async (input: string, { image, figures }: Restored): Promise<void> => {
    const name = names.get(input)!;
    const written = { output: `${name}.png`, ...(compare && { compare: `${name}.compare.png` }) };
    await writeAtomic(written.output, image);
    if (written.compare) await writeAtomic(written.compare, await encodeBeside(await decodeImage(input), await decodeImage(image)));
    progress.clear();
    for (const note of figures.notes) progress.log(`refl-native: ${input}: ${note}`);
    console.log(json ? JSON.stringify({ input, ...written, ...figures }) : written.output);
  };

  for (const { input, error } of failures) fail(input, error);
  if (!files.length) return;
  using restorer = await Restorer.load({ ...options, signal: interrupted });
  for (let done = 0; done < files.length; done += options.batch) {
    const group = files.slice(done, done + options.batch);
    const onProgress = (fraction: number): void => progress.update(done + fraction * group.length, group[0]);
    onProgress(0);
    const results = await restorer.restoreMany(group, { aligned, signal: interrupted, onProgress });
    for (const [i, result] of results.entries()) {
      if (result.status === 'rejected') fail(group[i], result.reason);
      else await finish(group[i], result.value).catch((error) => fail(group[i], error));
    }
  }
  progress.clear();
}
