import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { CommandModule } from 'yargs';
import { runTruncation, truncationSettings } from '../experiments/truncation.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions, text } from './options.ts';
import { StageProgress } from './progress.ts';

interface Args {
  photographs: string;
  out: string;
  json: boolean;
  device: string;
  threads?: number;
}

export const truncationCommand: CommandModule<object, Args> = {
  command: 'truncation [photographs]',
  describe: 'give the last 1, 2 or 4 denoising steps gradients, and compare them with those of the whole way: minutes',
  builder: (yargs) =>
    yargs
      .positional('photographs', {
        describe: 'folder of photographs',
        type: 'string',
        default: fileURLToPath(new URL('../../samples', import.meta.url)),
        defaultDescription: 'the samples of this package',
      })
      .options({
        out: { ...text('folder for the report and the runs'), alias: 'o', default: 'out/truncation' },
        ...deviceOptions,
        json: { describe: 'print the report as a JSON object', type: 'boolean', default: false },
      }),
  handler: truncation,
};

async function truncation({ json, out, ...workplace }: Args): Promise<void> {
  const progress = new StageProgress();
  const report = await runTruncation(truncationSettings, {
    ...workplace,
    ...{ out, signal: interrupted, onProgress: (stage, done, total) => progress.update(stage, done, total) },
  });
  progress.clear();
  if (json) {
    console.log(JSON.stringify(report));
    return;
  }
  for (const { traced, cosine, length, planned } of report.agreements) {
    const figures = `cosine ${cosine.toFixed(4)}, length ${length.toFixed(3)}, ${(planned / 1e6).toFixed(1)} MB`;
    console.log(`${traced} of ${report.settings.walk} steps with gradients: ${figures}`);
  }
  console.log(join(out, 'truncation.html'));
}
