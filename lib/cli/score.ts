import { basename } from 'node:path';
import type { CommandModule } from 'yargs';
import { RewardModel } from '../reward/model.ts';
import { type Preprocessing, preprocessings } from '../reward/pictures.ts';
import { readCaptions } from './captions.ts';
import { UsageError } from './failure.ts';
import { listInputs } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions, fileOptions, inputs } from './options.ts';
import { Report } from './report.ts';

interface Args {
  inputs: string[];
  weights: string;
  tokenizer: string;
  caption?: string;
  captions?: string;
  preprocessing: Preprocessing;
  batch: number;
  json: boolean;
  device: string;
  threads?: number;
}

export const scoreCommand: CommandModule<object, Args> = {
  command: 'score <inputs..>',
  describe: 'score pictures against captions with a reward model',
  builder: (yargs) =>
    yargs.positional('inputs', inputs).options({
      weights: {
        requiresArg: true,
        describe: 'HPS v2, HPS v2.1 or FaceRewardModel, as published or as .safetensors',
        type: 'string',
        demandOption: true,
      },
      tokenizer: {
        requiresArg: true,
        describe: "CLIP's tokenizer.json, its list of merges, or a folder with one of them",
        type: 'string',
        demandOption: true,
      },
      caption: { requiresArg: true, describe: 'what the pictures show', type: 'string', conflicts: 'captions' },
      captions: {
        requiresArg: true,
        describe: 'a file of JSON lines, {"image": a path or a name, "caption": what it shows}',
        type: 'string',
      },
      preprocessing: {
        requiresArg: true,
        describe: "the official one, or DiffusionReward's own; -plain without antialiasing, as older torchvision did",
        choices: Object.keys(preprocessings) as Preprocessing[],
        default: 'hps' as Preprocessing,
      },
      json: fileOptions.json,
      ...deviceOptions,
      batch: { requiresArg: true, describe: 'pictures worked on at once', type: 'number', default: 1 },
    }),
  handler: score,
};

async function score({ inputs: paths, caption, captions, json, batch, ...options }: Args): Promise<void> {
  if ((caption === undefined) === (captions === undefined)) throw new UsageError('give --caption or --captions');
  if (!(Number.isInteger(batch) && batch > 0)) throw new UsageError(`--batch must be 1 or more, got ${batch}`);
  const { files, failures } = await listInputs(paths);
  const captionOf = captions === undefined ? () => caption! : await readCaptions(captions);
  const described = files.map((file) => captionOf(file));
  const report = new Report(files.length, json);
  for (const { input, error } of failures) report.fail(input, error);
  if (!files.length) return;
  using model = await RewardModel.load(options);
  for (let done = 0; done < files.length; done += batch) {
    const group = files.slice(done, done + batch);
    report.progress.update(done, basename(group[0]));
    const texts = described.slice(done, done + batch);
    const results = await model.scoreMany(group, texts, { batch, signal: interrupted });
    for (const [i, result] of results.entries()) {
      if (result.status === 'rejected') {
        report.fail(group[i], result.reason);
        continue;
      }
      const { score, shortened } = result.value;
      if (shortened) report.note(group[i], 'its caption is too long for the model: the end was left out');
      report.result(group[i], `${score.toFixed(4)}  ${group[i]}`, { caption: texts[i], score, shortened });
    }
  }
  report.progress.clear();
}
