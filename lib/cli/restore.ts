import { basename } from 'node:path';
import type { CommandModule } from 'yargs';
import { guideLosses } from '../diffusion/guidance.ts';
import { type SamplerName, samplers } from '../diffusion/samplers.ts';
import { writeAtomic } from '../image/files.ts';
import { decodeImage, encodeBeside } from '../image/picture.ts';
import type { Settings } from '../restore/image_model.ts';
import { shippedModels } from '../restore/model.ts';
import { broughtModels, type ModelSource, weightTypes } from '../restore/open.ts';
import { type Restored, Restorer } from '../restore/restorer.ts';
import { readCaptions } from './captions.ts';
import { prepare } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { deviceOptions, type FileArgs, fileOptions, inputs } from './options.ts';

interface Args extends FileArgs, ModelSource, Settings {
  aligned: boolean;
  tile: boolean;
  model: string;
  prompts?: string;
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
        describe: `${[...Object.keys(shippedModels), ...broughtModels].join(', ')}, or the path of a .safetensors file`,
        type: 'string',
        default: 'face-256',
      },
      weights: {
        requiresArg: true,
        describe: 'the folder with the official files of a model (refl-native models lists them)',
        type: 'string',
      },
      tokenizer: {
        requiresArg: true,
        describe: "CLIP's tokenizer.json, its list of merges, or a folder with one [in --weights]",
        type: 'string',
      },
      networks: {
        requiresArg: true,
        describe: 'a JSON file of the configurations of networks that are not of the published size',
        type: 'string',
      },
      fold: { describe: "fold OSEDiff's adapters into its weights: faster, for more memory", type: 'boolean' },
      dtype: {
        requiresArg: true,
        describe: 'what weights are kept in: bf16 and f16 take half the memory [f32]',
        choices: weightTypes,
      },
      memory: {
        requiresArg: true,
        describe: 'gigabytes that a model keeps to besides its weights, by tiles [half of what is free]',
        type: 'number',
      },
      prompt: { requiresArg: true, describe: 'what the pictures show [nothing]', type: 'string', conflicts: 'prompts' },
      prompts: {
        requiresArg: true,
        describe: 'a file of JSON lines, {"image": a path or a name, "caption": its prompt}',
        type: 'string',
      },
      'negative-prompt': { requiresArg: true, describe: 'what they should not show', type: 'string' },
      steps: { requiresArg: true, describe: 'denoising steps, 1 to 1000 [50]', type: 'number' },
      sampler: {
        requiresArg: true,
        describe: 'how steps follow one another [spaced]',
        choices: Object.keys(samplers) as SamplerName[],
      },
      guidance: {
        requiresArg: true,
        describe: "scale of classifier-free guidance; 1 leaves it out and halves the work [the model's]",
        type: 'number',
      },
      rescale: { describe: 'let guidance grow from none at the noisy end', type: 'boolean' },
      strength: {
        requiresArg: true,
        describe: "how strongly DiffBIR's first stage steers its second [1]",
        type: 'number',
      },
      start: {
        requiresArg: true,
        describe: 'what sampling begins with [noise]',
        choices: ['noise', 'condition'] as const,
      },
      fidelity: {
        requiresArg: true,
        describe: 'from 0, all the detail that the model invents, to 1, none [0]',
        type: 'number',
      },
      'guide-scale': {
        requiresArg: true,
        describe: "how hard each of DiffBIR's steps is pulled towards its first stage's picture [0]",
        type: 'number',
      },
      'guide-loss': {
        requiresArg: true,
        describe: 'where: all over, or where that is flat [w_mse]',
        choices: guideLosses,
      },
      'guide-start': { requiresArg: true, describe: 'only below this timestep [1001]', type: 'number' },
      'guide-stop': { requiresArg: true, describe: 'only above this timestep [-1]', type: 'number' },
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

async function restore({ inputs, out, json, compare, prompts, ...options }: Args): Promise<void> {
  const promptOf = prompts === undefined ? undefined : await readCaptions(prompts);
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

  const { aligned, tile, seed, prompt, negativePrompt, steps, sampler, guidance, rescale, strength, start } = options;
  const { fidelity, guideScale, guideLoss, guideStart, guideStop } = options;
  const guide = { guideScale, guideLoss, guideStart, guideStop };
  const settings = { prompt, negativePrompt, steps, sampler, guidance, rescale, strength, start, fidelity, ...guide };
  const chosen = { aligned, tile, seed, ...settings };
  using restorer = await Restorer.load({ ...options, signal: interrupted });
  for (let done = 0; done < files.length; done += options.batch) {
    const group = files.slice(done, done + options.batch);
    const onProgress = (fraction: number): void =>
      report.progress.update(done + fraction * group.length, basename(group[0]));
    onProgress(0);
    const texts = promptOf && group.map(promptOf);
    const results = await restorer.restoreMany(group, { ...chosen, prompts: texts, signal: interrupted, onProgress });
    for (const [i, result] of results.entries()) {
      if (result.status === 'rejected') report.fail(group[i], result.reason);
      else await finish(group[i], result.value).catch((error) => report.fail(group[i], error));
    }
  }
  report.progress.clear();
}
