import type { CommandModule } from 'yargs';
import { convertWeights, type FloatType, floatTypes } from '../weights/convert.ts';
import { openWeights } from '../weights/open.ts';
import { interrupted } from './interrupt.ts';
import { Progress } from './progress.ts';

interface Args {
  file: string;
  out: string;
  dtype?: FloatType;
  verify: boolean;
}

export const convertCommand: CommandModule<object, Args> = {
  command: 'convert <file> <out>',
  describe: 'write a file of weights, in any form that inspect knows, as one safetensors file',
  builder: (yargs) =>
    yargs
      .positional('file', { describe: 'what is read', type: 'string', demandOption: true })
      .positional('out', { describe: 'the safetensors file; it is replaced', type: 'string', demandOption: true })
      .options({
        dtype: {
          requiresArg: true,
          describe: 'what floating tensors become [each keeps its type by default]',
          choices: Object.keys(floatTypes) as FloatType[],
        },
        verify: {
          describe: "hold the values against the file's checksums first, where it has any",
          type: 'boolean',
          default: true,
        },
      }),
  handler: async ({ file: path, out, dtype, verify }) => {
    const file = await openWeights(path);
    const progress = new Progress(file.entries.size, 'tensors');
    const onProgress = (fraction: number): void => progress.update(fraction * file.entries.size);
    try {
      await convertWeights(file, out, { dtype, verify, signal: interrupted, onProgress });
    } finally {
      progress.clear();
    }
    console.log(out);
  },
};
