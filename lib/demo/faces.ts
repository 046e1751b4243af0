import { readFile } from 'node:fs/promises';
import { basename, join, parse } from 'node:path';
import { writeFaceDataset } from '../data/dataset.ts';
import { FaceGatherer, type GatheredFace } from '../data/faces.ts';
import { ReflError } from '../errors.ts';
import type { Device } from '../runtime/index.ts';

/** A clear face to make inputs of. */
export interface ClearFace {
  /** The picture, with a margin around the aligned face. */
  readonly path: string;
  /** Who it is; for a morph, the two people joined by `+`. */
  readonly person: string;
  /** `train` and `heldout` are photographs of different people, `morph` a face made of two of `train`. */
  readonly kind: 'train' | 'heldout' | 'morph';
}

export interface FacesOptions {
  /** Folder of the data set, made unless it is there. */
  readonly out: string;
  readonly photographs: readonly string[];
  /** Names of the faces whose people are held out, as `data faces` takes them. */
  readonly heldOut: readonly string[];
  readonly morphs: number;
  readonly seed: number;
  readonly signal?: AbortSignal;
}

/** Sides of the crops, and what lies around them for crops that are not all in one place. */
const crop = { size: 256, margin: 32 };

/** What this reads of a data set's `manifest.json`. */
interface Manifest {
  readonly faces: readonly {
    readonly set: 'train' | 'heldout';
    readonly wide: string;
    readonly file: string;
    readonly person: string;
  }[];
  readonly morphs: readonly { readonly file: string; readonly first: string; readonly second: string }[];
}

/**
 * The faces of photographs, those of some people held out, and morphs between the others: as `data faces` makes them. Throws
 * ERR_IMAGE where no face is found, ERR_FILE, and ERR_OPTION on a name in `heldOut` that is no face.
 */
export async function clearFaces(device: Device, options: FacesOptions): Promise<ClearFace[]> {
  const { out, photographs, signal, ...rest } = options;
  const known = await readManifest(out);
  if (!known) {
    const found: GatheredFace[] = [];
    using gatherer = await FaceGatherer.load(device, crop);
    for (const path of photographs) {
      signal?.throwIfAborted();
      found.push(...(await gatherer.gather({ name: parse(path).name, path })).faces);
    }
    if (!found.length) throw new ReflError('ERR_IMAGE', 'no photograph shows a face');
    await writeFaceDataset(device, found, { ...rest, out, crop, share: 0, signal });
  }
  const manifest = known ?? (await readManifest(out))!;
  const personOf = new Map(manifest.faces.map(({ file, person }) => [parse(basename(file)).name, person]));
  return [
    ...manifest.faces.map(({ set, wide, person }) => ({ path: join(out, wide), person, kind: set })),
    ...manifest.morphs.map(({ file, first, second }) => ({
      path: join(out, file),
      person: `${personOf.get(first)}+${personOf.get(second)}`,
      kind: 'morph' as const,
    })),
  ];
}

/** The folder appears whole or not at all, so a manifest that is there is complete. */
async function readManifest(folder: string): Promise<Manifest | undefined> {
  const text = await readFile(join(folder, 'manifest.json'), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Manifest);
}
