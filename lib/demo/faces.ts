import { readFile } from 'node:fs/promises';
import { basename, join, parse } from 'node:path';
import { writeFaceDataset } from '../data/dataset.ts';
import { FaceGatherer, type GatheredFace, groupPersons } from '../data/faces.ts';
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
  /** Names of faces, or of whole photographs, whose people are held out. */
  readonly heldOut: readonly string[];
  /** Those whose people are trained on: all others when left out. Whoever is in neither is left aside. */
  readonly people?: readonly string[];
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
    readonly photograph: string;
    readonly person: string;
  }[];
  readonly morphs: readonly { readonly file: string; readonly first: string; readonly second: string }[];
}

/**
 * The faces of photographs, those of some people held out, and morphs between the others: as `data faces` makes them. Throws
 * ERR_IMAGE where no face is found, ERR_FILE, and ERR_OPTION on a name that is no face or of somebody in both lists.
 */
export async function clearFaces(device: Device, options: FacesOptions): Promise<ClearFace[]> {
  const { out, photographs, heldOut, people, morphs, seed, signal } = options;
  const known = await readManifest(out);
  if (!known) {
    const found: GatheredFace[] = [];
    using gatherer = await FaceGatherer.load(device, crop);
    for (const path of photographs) {
      signal?.throwIfAborted();
      found.push(...(await gatherer.gather({ name: parse(path).name, path })).faces);
    }
    if (!found.length) throw new ReflError('ERR_IMAGE', 'no photograph shows a face');
    const untrained = people ? othersThan(people, found, heldOut) : heldOut;
    await writeFaceDataset(device, found, { heldOut: untrained, morphs, seed, out, crop, share: 0, signal });
  }
  const manifest = known ?? (await readManifest(out))!;
  const nameOf = (file: string): string => parse(basename(file)).name;
  const held = new Set(
    manifest.faces.filter((face) => isNamed(heldOut, nameOf(face.file), face.photograph)).map(({ person }) => person),
  );
  const personOf = new Map(manifest.faces.map(({ file, person }) => [nameOf(file), person]));
  return [
    ...manifest.faces
      .filter(({ set, person }) => set === 'train' || held.has(person))
      .map(({ set, wide, person }) => ({ path: join(out, wide), person, kind: set })),
    ...manifest.morphs.map(({ file, first, second }) => ({
      path: join(out, file),
      person: `${personOf.get(first)}+${personOf.get(second)}`,
      kind: 'morph' as const,
    })),
  ];
}

const isNamed = (names: readonly string[], id: string, photograph: string): boolean =>
  names.includes(id) || names.includes(photograph);

/** The faces of all whom `people` does not name. */
function othersThan(
  people: readonly string[],
  faces: readonly GatheredFace[],
  heldOut: readonly string[],
): readonly string[] {
  const has = (person: readonly GatheredFace[], names: readonly string[]): boolean =>
    person.some(({ id, source }) => isNamed(names, id, source.name));
  const unknown = [...people, ...heldOut].filter((name) => !has(faces, [name]));
  if (unknown.length) throw new ReflError('ERR_OPTION', `no face is named ${unknown.join(', ')}`);
  const persons = groupPersons(faces);
  const both = persons.find((person) => has(person, people) && has(person, heldOut));
  if (both) throw new ReflError('ERR_OPTION', `${both[0].id} is to be trained on and held out`);
  return persons.filter((person) => !has(person, people)).flatMap((person) => person.map(({ id }) => id));
}

/** The folder appears whole or not at all, so a manifest that is there is complete. */
async function readManifest(folder: string): Promise<Manifest | undefined> {
  const text = await readFile(join(folder, 'manifest.json'), 'utf8').catch(() => undefined);
  return text === undefined ? undefined : (JSON.parse(text) as Manifest);
}
