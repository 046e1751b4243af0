import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import type { CommandModule } from 'yargs';
import { demoFrm } from '../demo/frm.ts';
import type { FrmReport } from '../demo/report.ts';
import { frmDemo } from '../demo/settings.ts';
import { interval } from './comparisons.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions } from './options.ts';
import { StageProgress } from './progress.ts';

interface Args {
  out: string;
  json: boolean;
  device: string;
  threads?: number;
}

/** The demonstration photographs of @vladmandic/face-api, by an MIT licence. */
const folder = dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json'));
export const photographs = [1, 2, 3, 4, 5, 6].map((number) => join(folder, 'demo', `sample${number}.jpg`));

export const demoFrmCommand: CommandModule<object, Args> = {
  command: 'frm',
  describe: 'make a small face reward model from photographs, from degraded faces to a report: about ten minutes',
  builder: (yargs) =>
    yargs.options({
      out: {
        alias: 'o',
        requiresArg: true,
        describe: 'folder for everything',
        type: 'string',
        default: 'out/demo-frm',
      },
      ...deviceOptions,
      json: { describe: 'print the report as a JSON object', type: 'boolean', default: false },
    }),
  handler: demo,
};

async function demo({ out, json, device, threads }: Args): Promise<void> {
  const progress = new StageProgress();
  const report = await demoFrm(
    { ...frmDemo, photographs, out, device, threads, signal: interrupted },
    { onProgress: (stage, done, total) => progress.update(stage, done, total) },
  );
  progress.clear();
  console.log(json ? JSON.stringify(report) : describe(report, out));
}

function describe({ rule, data, targets }: FrmReport, out: string): string {
  const width = Math.max(...targets.map(({ what }) => what.length));
  return [
    rule,
    ...targets.map(({ what, least, found, reached }) => {
      const aim = `${reached ? 'reached' : 'missed'}: at least ${100 * least}%`;
      return `  ${what.padEnd(width)}  ${interval(found)}, ${aim}`;
    }),
    `${data.heldout.pairs} pairs of ${data.heldout.people} held-out people; the model is in ${out}/frm/last.safetensors`,
    `${out}/report.html`,
  ].join('\n');
}
