import type { CommandModule } from 'yargs';
import { sizeOf } from '../graph/tensor.ts';
import { findParts, parts } from '../models/parts.ts';
import type { WeightsFile } from '../weights/format.ts';
import { openWeights } from '../weights/open.ts';

interface Args {
  file: string;
  json: boolean;
}

export const inspectCommand: CommandModule<object, Args> = {
  command: 'inspect <file>',
  describe: 'list the tensors of a file of weights, or of a folder of diffusers, and say which model it is',
  builder: (yargs) =>
    yargs
      .positional('file', {
        describe: 'safetensors, a PyTorch checkpoint, an index of shards, or a folder',
        type: 'string',
        demandOption: true,
      })
      .option('json', {
        describe: 'print one JSON object a tensor, the summary last',
        type: 'boolean',
        default: false,
      }),
  handler: async ({ file: path, json }) => {
    const file = await openWeights(path);
    for (const [name, { dtype, shape }] of file.entries) {
      console.log(json ? JSON.stringify({ name, dtype, shape }) : `${dtype.padEnd(4)} ${name} [${shape.join(', ')}]`);
    }
    const summary = summarise(file);
    console.log(json ? JSON.stringify(summary) : describe(summary));
  },
};

interface Summary {
  readonly tensors: number;
  readonly parameters: number;
  readonly bytes: number;
  readonly models: readonly { readonly model: string; readonly naming: string; readonly prefix: string }[];
  readonly metadata: Readonly<Record<string, string>>;
}

function summarise(file: WeightsFile): Summary {
  const entries = [...file.entries.values()];
  return {
    tensors: entries.length,
    parameters: entries.reduce((sum, { shape }) => sum + sizeOf(shape), 0),
    bytes: entries.reduce((sum, { bytes }) => sum + bytes, 0),
    models: findParts(file).map(({ part, naming, prefix }) => ({ model: parts[part], naming, prefix })),
    metadata: file.metadata,
  };
}

function describe({ tensors, parameters, bytes, models, metadata }: Summary): string {
  const count = (n: number): string => n.toLocaleString('en');
  const lines = [`${count(tensors)} tensors, ${count(parameters)} parameters, ${(bytes / 1e9).toFixed(3)} GB`];
  for (const { model, naming, prefix } of models) {
    lines.push(`${model}, under ${naming} names${prefix && ` behind ${prefix}`}`);
  }
  if (metadata.format) lines.push(`format ${metadata.format}`);
  if (!models.length && !metadata.format) lines.push('no model that is known here');
  return lines.join('\n');
}
