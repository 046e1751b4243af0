import { ReflError } from '../errors.ts';
import { reshaped } from '../weights/entries.ts';
import type { Entry, WeightsFile } from '../weights/format.ts';
import { fromDiffusers, layoutOf, toDiffusers, unetModules, vaeModules } from './diffusers.ts';
import type { OSEDiffRanks } from './osediff.ts';

/** OSEDiff's adapters, and what else it trained, by the names of a network that {@link OSEDiff} made for them. */
export interface Adapters {
  readonly unet: WeightsFile;
  readonly vae: WeightsFile;
  readonly ranks: OSEDiffRanks;
}

/** What precedes the names of diffusers in OSEDiff's files. */
const unetPrefix = 'state_dict_unet.';
const vaePrefix = 'state_dict_vae.';

/**
 * The adapters in a file of OSEDiff (`osediff.pkl`, `osediff_face.pkl`): two state dicts under diffusers' names, with their
 * ranks. Throws ERR_WEIGHTS for a file without them.
 */
export function adaptersOf(file: WeightsFile): Adapters {
  const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${file.path} is no file of OSEDiff: ${why}`);
  const below = (prefix: string): Map<string, Entry> => {
    const own = [...file.entries].filter(([key]) => key.startsWith(prefix));
    if (!own.length) throw bad(`it lacks ${prefix.slice(0, -1)}`);
    return new Map(own.map(([key, entry]) => [key.slice(prefix.length), entry]));
  };
  const rank = (name: string): number => {
    const value = Number(file.metadata[name]);
    if (Number.isInteger(value) && value > 0) return value;
    throw bad(`its ${name} is ${file.metadata[name]}`);
  };
  const [unet, vae] = [below(unetPrefix), below(vaePrefix)];
  return {
    unet: { ...file, entries: adapted(unet, fromDiffusers(unetModules(layoutOf(unet.keys())))) },
    vae: { ...file, entries: adapted(vae, fromDiffusers(vaeModules(layoutOf(vae.keys())))) },
    ranks: { unet: rank('rank_unet'), vae: rank('rank_vae') },
  };
}

/** Entries by their original names; those for which there is none keep theirs, so that loading reports them. */
function adapted(entries: ReadonlyMap<string, Entry>, rename: (key: string) => string | undefined): Map<string, Entry> {
  return new Map(
    [...entries].map(([key, entry]) => {
      const name = rename(key) ?? key;
      // The attention of the autoencoder has linear layers in diffusers, which are 1x1 convolutions here.
      const linear = entry.shape.length === 2 && name.includes('.mid.attn_1.');
      return [name, linear ? reshaped(entry, [...entry.shape, 1, 1]) : entry];
    }),
  );
}

/**
 * The names that a file of OSEDiff has for parameters of an {@link OSEDiff} with adapters, `unet.` and `vae.` before their
 * keys: what another file of the kind is written under.
 */
export function adapterNames(file: WeightsFile): (key: string) => string {
  const keysBelow = (prefix: string): string[] => [...file.entries.keys()].filter((key) => key.startsWith(prefix));
  const unet = toDiffusers(unetModules(layoutOf(keysBelow(unetPrefix))));
  const vae = toDiffusers(vaeModules(layoutOf(keysBelow(vaePrefix))));
  return (key) => {
    const [, part, own] = /^(unet|vae)\.(.+)$/.exec(key)!;
    const named = part === 'unet' ? unet(own) : vae(own);
    return (part === 'unet' ? unetPrefix : vaePrefix) + named;
  };
}
