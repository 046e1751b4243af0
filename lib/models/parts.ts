import { ReflError } from '../errors.ts';
import { reshaped } from '../weights/entries.ts';
import type { Entry, WeightsFile } from '../weights/format.ts';
import { fromDiffusers, layoutOf, unetModules, vaeModules } from './diffusers.ts';
import { fromTransformers } from './transformers.ts';

/** Networks that files are published with, and parts of networks. */
export const parts = {
  unet: "Stable Diffusion's UNet",
  controlnet: "DiffBIR's IRControlNet",
  vae: "Stable Diffusion's autoencoder",
  text: "CLIP's text encoder",
  clip: 'CLIP, both towers',
  swinir: 'SwinIR',
  adapters: "OSEDiff's adapters",
  vgg16: "torchvision's VGG16",
  lpips: "LPIPS's linear layers",
} as const;

export type Part = keyof typeof parts;

/** One way in which a network is named in files. */
interface Form {
  readonly part: Part;
  readonly naming: string;
  /** Matches, to their ends, keys that no other network has. What precedes a match stands before all keys of the network. */
  readonly sign: RegExp;
  /** Matches the keys that are the network's, the sign's prefix left out. */
  readonly own: RegExp;
  /** Gives the entries their names here. */
  readonly rename?: (entries: ReadonlyMap<string, Entry>) => Map<string, Entry>;
}

const text = /^(transformer|token_embedding|ln_final)\.|^(positional_embedding|text_projection|logit_scale)$/;
const hfText = /^text_model\.|^text_projection\.weight$|^logit_scale$/;

/** Forms by rising generality: what both towers match, the text tower matches too. */
const forms: readonly Form[] = [
  {
    part: 'unet',
    naming: 'original',
    sign: /(^|\.)output_blocks\.\d+\.0\.in_layers\.0\.(weight|bias)$/,
    own: /^(time_embed|input_blocks|middle_block|output_blocks|out)\./,
  },
  {
    part: 'unet',
    naming: 'diffusers',
    sign: /(^|\.)up_blocks\.\d+\.resnets\.\d+\.time_emb_proj\.(weight|bias)$/,
    own: /^(time_embedding|down_blocks|mid_block|up_blocks|conv_in|conv_out|conv_norm_out)\./,
    rename: (entries) => renamedBy(entries, fromDiffusers(unetModules(layoutOf(entries.keys())))),
  },
  {
    part: 'controlnet',
    naming: 'original',
    sign: /(^|\.)zero_convs\.\d+\.0\.(weight|bias)$/,
    own: /^(time_embed|input_blocks|middle_block|middle_block_out|zero_convs)\./,
  },
  {
    part: 'vae',
    naming: 'original',
    sign: /(^|\.)decoder\.up\.\d+\.block\.\d+\.norm1\.(weight|bias)$/,
    own: /^(encoder|decoder|quant_conv|post_quant_conv)\./,
  },
  {
    part: 'vae',
    naming: 'diffusers',
    sign: /(^|\.)decoder\.up_blocks\.\d+\.resnets\.\d+\.norm1\.(weight|bias)$/,
    own: /^(encoder|decoder|quant_conv|post_quant_conv)\./,
    rename: (entries) => withSquares(renamedBy(entries, fromDiffusers(vaeModules(layoutOf(entries.keys()))))),
  },
  {
    part: 'clip',
    naming: 'open_clip',
    sign: /(^|\.)visual\.ln_post\.(weight|bias)$/,
    own: new RegExp(`^visual\\.|${text.source}`),
  },
  {
    part: 'clip',
    naming: 'transformers',
    sign: /(^|\.)vision_model\.post_layernorm\.(weight|bias)$/,
    own: new RegExp(`^vision_model\\.|^visual_projection\\.|${hfText.source}`),
    rename: fromTransformers,
  },
  { part: 'text', naming: 'open_clip', sign: /(^|\.)(ln_final\.(weight|bias)|token_embedding\.weight)$/, own: text },
  {
    part: 'text',
    naming: 'transformers',
    sign: /(^|\.)text_model\.(final_layer_norm|embeddings\.token_embedding)\.(weight|bias)$/,
    own: hfText,
    rename: fromTransformers,
  },
  {
    part: 'swinir',
    naming: 'original',
    sign: /(^|\.)layers\.\d+\.residual_group\.blocks\.\d+\.norm1\.(weight|bias)$/,
    own: /./,
  },
  { part: 'adapters', naming: 'diffusers', sign: /^(?=state_dict_unet\..*\.lora_A\.)/, own: /./ },
  { part: 'vgg16', naming: 'original', sign: /(^|\.)features\.28\.weight$/, own: /./ },
  { part: 'lpips', naming: 'original', sign: /(^|\.)lin4\.model\.1\.weight$/, own: /./ },
];

/** A network found in a file. */
export interface FoundPart {
  readonly part: Part;
  readonly naming: string;
  /** What stands before its keys. */
  readonly prefix: string;
}

/** The networks that a file holds, by its names alone. The text encoder of a CLIP with both towers is not named apart. */
export function findParts(file: WeightsFile): FoundPart[] {
  const found = allParts(file);
  const whole = found.filter(({ part }) => part === 'clip').map(({ prefix }) => prefix);
  return found.filter(({ part, prefix }) => part !== 'text' || !whole.includes(prefix));
}

function allParts(file: WeightsFile): FoundPart[] {
  const found = new Map<string, FoundPart>();
  for (const key of file.entries.keys()) {
    for (const { part, naming, sign } of forms) {
      const match = sign.exec(key);
      if (!match) continue;
      const prefix = key.slice(0, match.index + (match[1]?.length ?? 0));
      // A tower's own names occur inside of larger networks.
      if (!inside.test(prefix)) found.set(`${part} ${naming} ${prefix}`, { part, naming, prefix });
    }
  }
  return [...found.values()];
}

/** Prefixes under which a network belongs to a larger one of another part. */
const inside = /(^|\.)(visual|text_model|text_model\.embeddings|decoder|encoder)\.$/;

/**
 * The tensors of one network of a file, by the names that its class has here, whatever they are there: original, of
 * diffusers, or of transformers. Its values are read from the same file. Throws ERR_WEIGHTS that says what the file holds
 * instead.
 */
export function partOf(file: WeightsFile, part: Part): WeightsFile {
  const same = allParts(file).filter((other) => other.part === part);
  const [first] = same.sort((a, b) => rank(a.prefix) - rank(b.prefix));
  if (!first) {
    const known = [...new Set(findParts(file).map((other) => parts[other.part]))].join(', ');
    const some = [...file.entries.keys()].slice(0, 3).join(', ');
    const what = known || `${file.entries.size} tensors of no network that is known here, such as ${some}`;
    throw new ReflError('ERR_WEIGHTS', `${file.path} does not hold ${parts[part]}: it holds ${what}`);
  }
  const form = forms.find((other) => other.part === part && other.naming === first.naming)!;
  const entries = new Map<string, Entry>();
  for (const [key, entry] of file.entries) {
    const own = key.startsWith(first.prefix) ? key.slice(first.prefix.length) : '';
    if (form.own.test(own)) entries.set(own, entry);
  }
  return { ...file, entries: form.rename?.(entries) ?? entries };
}

/** A copy that was averaged in training comes after the weights themselves. */
const rank = (prefix: string): number => (/ema/i.test(prefix) ? 1 : 0);

/** Entries by other names; those for which there is none keep theirs, so that loading reports them. */
function renamedBy(
  entries: ReadonlyMap<string, Entry>,
  rename: (key: string) => string | undefined,
): Map<string, Entry> {
  return new Map([...entries].map(([key, entry]) => [rename(key) ?? key, entry]));
}

/** An autoencoder's attention has linear layers in diffusers, which are 1x1 convolutions in the original. */
function withSquares(entries: ReadonlyMap<string, Entry>): Map<string, Entry> {
  return new Map(
    [...entries].map(([key, entry]) => {
      const linear = entry.shape.length === 2 && /\.mid\.attn_1\.(q|k|v|proj_out)\.weight$/.test(key);
      return [key, linear ? reshaped(entry, [...entry.shape, 1, 1]) : entry];
    }),
  );
}
