import { basename, parse } from 'node:path';
import type { CommandModule } from 'yargs';
import { ReflError } from '../errors.ts';
import { readBytes } from '../image/files.ts';
import { decodeImage, encodePng } from '../image/picture.ts';
import { type Candidate, type FaceInput, makeCandidates, type OpenCandidate } from '../restore/candidates.ts';
import { type FilterName, filters } from '../restore/filters.ts';
import type { ModelSource } from '../restore/open.ts';
import { type RestoreOptions, Restorer, type RestorerOptions } from '../restore/restorer.ts';
import { readCaptions } from './captions.ts';
import { UsageError } from './failure.ts';
import { prepare } from './inputs.ts';
import { interrupted } from './interrupt.ts';
import { dashed, deviceOptions, type FileArgs, fileOptions, inputs } from './options.ts';

interface Args extends FileArgs, ModelSource {
  candidates: string[];
  perFace: number;
  seed: number;
  people?: string;
  captions?: string;
}

export const candidatesCommand: CommandModule<object, Args> = {
  command: 'candidates <inputs..>',
  describe: 'restore aligned faces in several ways, and pair the results for people to compare',
  builder: (yargs) =>
    yargs.positional('inputs', inputs).options(
      dashed({
        out: { ...fileOptions.out, describe: 'folder for <face>/<candidate>.png, candidates.jsonl and pairs.jsonl' },
        candidates: {
          describe: `how to restore: [NAME=]MODEL[,seed=N,steps=N...], where MODEL is what restore takes, or one of ${Object.keys(filters).join(', ')}`,
          type: 'string',
          array: true,
          requiresArg: true,
          default: ['face-256', 'bicubic', 'sharpen', 'denoise'],
        },
        perFace: {
          describe: 'candidates of each face; drawn where there are more',
          type: 'number',
          requiresArg: true,
          default: 4,
        },
        seed: { describe: 'of which are drawn, and of their order', type: 'number', requiresArg: true, default: 0 },
        people: { describe: 'the manifest.json of data faces: who is who', type: 'string', requiresArg: true },
        weights: { describe: 'the folder with the official files of models', type: 'string', requiresArg: true },
        tokenizer: {
          describe: "CLIP's tokenizer.json, its list of merges, or a folder with one [in --weights]",
          type: 'string',
          requiresArg: true,
        },
        networks: {
          describe: 'a JSON file of the configurations of networks that are not of the published size',
          type: 'string',
          requiresArg: true,
        },
        captions: { describe: 'JSON lines of image and caption', type: 'string', requiresArg: true },
        ...deviceOptions,
        json: { describe: 'print the figures as a JSON object', type: 'boolean', default: false },
      }),
    ),
  handler: candidates,
};

async function candidates({ inputs, out, json, perFace, seed, people, captions, ...args }: Args): Promise<void> {
  if (!Number.isSafeInteger(seed)) throw new ReflError('ERR_OPTION', `seed must be a whole number, got ${seed}`);
  const { weights, tokenizer, networks, device, threads } = args;
  const source = { weights, tokenizer, networks, device, threads };
  const ways = args.candidates.map((text) => parseCandidate(text, source));
  const twice = ways.find(({ name }, i) => ways.findIndex((other) => other.name === name) < i);
  if (twice) throw new UsageError(`two candidates are named ${twice.name}: name one, as in other=${twice.name}`);
  const personOf = people === undefined ? undefined : await readPeople(people);
  const captionOf = captions === undefined ? undefined : await readCaptions(captions);
  const { files, names, report } = await prepare(inputs, out, json, ['']);
  const faces = files.map((path): FaceInput => {
    const id = basename(names.get(path)!);
    return { id, path, person: personOf ? personOf(path) : id, ...(captionOf && { caption: captionOf(path) }) };
  });
  if (!faces.length) return;
  if (!personOf) {
    report.progress.log('refl-native: every picture counts as another person: --people says who is who');
  }
  const { output, notes, ...figures } = await makeCandidates(faces, ways, {
    ...{ out, perFace, seed, signal: interrupted },
    onDone: (done, total) => report.progress.update((done * faces.length) / total),
    onFailed: ({ path }, error) => report.fail(path, error),
  });
  for (const note of notes) report.progress.log(`refl-native: ${note}`);
  report.progress.clear();
  if (json) {
    console.log(JSON.stringify({ output, ...figures }));
    return;
  }
  report.progress.log(
    `refl-native: ${figures.made} pictures made, ${figures.kept} were there; ${figures.pairs} pairs of ${faces.length} faces`,
  );
  console.log(output);
}

type Value = string | number | boolean;

/** What a candidate may say of its model, by how the value is read; `weights` stands in for the option. */
const numeric = ['seed', 'steps', 'guidance', 'strength', 'fidelity', 'guideScale', 'guideStart', 'guideStop'];
const texts = ['prompt', 'negativePrompt', 'sampler', 'start', 'guideLoss', 'weights'];
const flags = ['rescale'];

/** Reads `[NAME=]MODEL[,key=value...]`. */
function parseCandidate(text: string, source: RestorerOptions): Candidate {
  const [head, ...rest] = text.split(',');
  const [, given, model] = /^(?:([\w.-]+)=)?(.+)$/.exec(head) ?? [];
  if (!model) throw new UsageError(`${JSON.stringify(text)} names no candidate: [NAME=]MODEL[,key=value...]`);
  const settings = Object.fromEntries(rest.map((setting) => parseSetting(text, setting)));
  const name = given ?? [parse(model).name, ...rest.map((setting) => setting.replace('=', ''))].join('-');
  if (!/^[\w.-]+$/.test(name)) throw new UsageError(`the candidate ${text} needs a name for its files: NAME=${text}`);
  const recipe = { model, ...settings };
  if (!Object.hasOwn(filters, model)) return { name, recipe, open: () => openModel({ ...source, model }, settings) };
  if (rest.length) throw new UsageError(`${model} has no use for ${rest.join(', ')}`);
  return { name, recipe, open: async () => openFilter(model as FilterName) };
}

function parseSetting(text: string, setting: string): [string, Value] {
  const [, key, value] = /^(\w+)=(.+)$/.exec(setting) ?? [];
  if (texts.includes(key)) return [key, value];
  if (numeric.includes(key) && Number.isFinite(Number(value))) return [key, Number(value)];
  if (flags.includes(key) && ['true', 'false'].includes(value)) return [key, value === 'true'];
  const known = [...numeric, ...texts, ...flags].join(', ');
  throw new UsageError(`${JSON.stringify(setting)} in ${text} is no setting: key=value with ${known}`);
}

async function openModel(
  options: RestorerOptions,
  { weights = options.weights, ...settings }: RestoreOptions & { weights?: string },
): Promise<OpenCandidate> {
  const restorer = await Restorer.load({ ...options, weights, signal: interrupted });
  return {
    restore: async (path, signal) => (await restorer.restore(path, { ...settings, aligned: true, signal })).image,
    [Symbol.dispose]: () => restorer.dispose(),
  };
}

function openFilter(name: FilterName): OpenCandidate {
  return {
    restore: async (path) => encodePng(await filters[name](await decodeImage(path))),
    [Symbol.dispose]: () => {},
  };
}

/** Who is on a face of a data set, by the name of its file without ending: degraded copies keep it. */
async function readPeople(path: string): Promise<(file: string) => string> {
  const known = new Map<string, string>();
  try {
    const { faces } = JSON.parse((await readBytes(path)).toString()) as { faces: { file: string; person: string }[] };
    for (const { file, person } of faces) known.set(parse(file).name, person);
  } catch (cause) {
    throw cause instanceof ReflError ? cause : new UsageError(`${path} is no manifest of data faces`, { cause });
  }
  return (file) => {
    const person = known.get(parse(file).name);
    if (person === undefined) throw new UsageError(`${path} does not say who is on ${file}`);
    return person;
  };
}
