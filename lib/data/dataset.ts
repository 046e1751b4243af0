import { createHash } from 'node:crypto';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ReflError } from '../errors.ts';
import { readBytes, writeAtomic, writeFolderAtomic } from '../image/files.ts';
import { encodePng, sharpOf } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import { Draws } from './draws.ts';
import { type CropSize, distance, type GatheredFace, groupPersons } from './faces.ts';
import { type AlignedFace, Morpher, type MorphOptions, mirrorLandmarks } from './morph.ts';

export interface SplitOptions {
  /** Names of faces (`sample1_0`) or of whole photographs (`sample1`), `*` standing for anything, whose people are held out. */
  readonly heldOut: readonly string[];
  /** The part of the people that is held out, those of `heldOut` included; the others are drawn. */
  readonly share: number;
  readonly seed: number;
}

export interface DatasetOptions extends SplitOptions {
  /** A folder that does not exist yet, or is empty. */
  readonly out: string;
  /** What the faces were gathered with. */
  readonly crop: CropSize;
  /** Morphs to make between the faces for training. */
  readonly morphs: number;
  readonly signal?: AbortSignal;
  readonly onMorph?: (done: number) => void;
}

/** The two faces of different sets that look most alike, and the distance of their embeddings. */
export interface NearestPair {
  readonly train: string;
  readonly heldout: string;
  readonly distance: number;
}

export interface DatasetSummary {
  readonly faces: number;
  readonly persons: number;
  readonly train: number;
  readonly heldout: number;
  readonly morphs: number;
  /** Absent where a set is empty. */
  readonly nearest?: NearestPair;
}

/** Faces that lean so far to the side that landmarks lie on one another make no morphs: width of the nearer to that of the farther cheek. */
const mostTurned = 4;

/**
 * Writes a dataset of aligned faces, whole or not at all: OUT/train and OUT/heldout with the crops (256 x 256 by default, with
 * a margin of 32), OUT/train320 and OUT/heldout320 with the same crops and the margin around them, OUT/morphs with morphs
 * of the larger size between different people for training, and OUT/manifest.json with where each came from. All faces of a
 * person are in one set.
 *
 * Throws ERR_OPTION where `heldOut` names a face that is not there, ERR_FILE.
 */
export async function writeFaceDataset(
  device: Device,
  faces: readonly GatheredFace[],
  options: DatasetOptions,
): Promise<DatasetSummary> {
  const { out, crop, signal, onMorph: _, ...settings } = options;
  const persons = groupPersons(faces);
  const held = heldOutFaces(persons, options);
  const sets = { train: faces.filter((face) => !held.has(face)), heldout: faces.filter((face) => held.has(face)) };
  const wide = crop.size + 2 * crop.margin;
  return writeFolderAtomic(out, async (folder) => {
    const sources = new Set(faces.map(({ source }) => source));
    const photographs = [];
    for (const { name, path } of sources)
      photographs.push({
        name,
        path,
        sha256: createHash('sha256')
          .update(await readBytes(path))
          .digest('hex'),
      });
    const records = [];
    for (const [set, members] of Object.entries(sets)) {
      for (const subfolder of [set, `${set}${wide}`]) await mkdir(join(folder, subfolder));
      for (const face of members) {
        signal?.throwIfAborted();
        const files = { file: `${set}/${face.id}.png`, wide: `${set}${wide}/${face.id}.png` };
        await writeAtomic(join(folder, files.file), await encodePng(face.crop));
        await writeAtomic(join(folder, files.wide), await encodePng(face.wide.image));
        const person = persons.find((p) => p.includes(face))![0].id;
        records.push({ set, ...files, person, ...record(face) });
      }
    }
    const morphs = await writeMorphs(device, sets.train, persons, folder, options);
    const nearest = nearestPair(sets.train, sets.heldout);
    const summary = {
      faces: faces.length,
      persons: persons.length,
      train: sets.train.length,
      heldout: sets.heldout.length,
      morphs: morphs.length,
      nearest,
    };
    const manifest = { options: { ...crop, ...settings }, summary, photographs, faces: records, morphs };
    await writeAtomic(join(folder, 'manifest.json'), Buffer.from(linesOf(manifest)));
    return summary;
  });
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));

/** What `manifest.json` says of a face; landmarks are 68 times x and y, in pixels of the photograph. */
function record({ source, face: { box, score, landmarks }, scale }: GatheredFace): object {
  const { left, top, width, height } = box;
  return {
    photograph: source.name,
    box: [left, top, width, height].map((v) => round(v, 1)),
    score: round(score, 4),
    scale: round(scale, 4),
    landmarks: landmarks.flatMap(({ x, y }) => [round(x, 2), round(y, 2)]),
  };
}

/** JSON with a line for every entry of a list or an object at its top. */
function linesOf(value: object): string {
  const entry = ([key, item]: [string, unknown]): string => {
    const lines = Array.isArray(item) ? item.map((v) => `    ${JSON.stringify(v)}`) : undefined;
    return `  ${JSON.stringify(key)}: ${lines ? `[\n${lines.join(',\n')}\n  ]` : JSON.stringify(item)}`;
  };
  return `{\n${Object.entries(value).map(entry).join(',\n')}\n}\n`;
}

function nearestPair(train: readonly GatheredFace[], heldout: readonly GatheredFace[]): NearestPair | undefined {
  let nearest: NearestPair | undefined;
  for (const a of train) {
    for (const b of heldout) {
      const d = distance(a.embedding, b.embedding);
      if (!nearest || d < nearest.distance) nearest = { train: a.id, heldout: b.id, distance: d };
    }
  }
  return nearest;
}

/** All faces of the people that the options hold out. A person's lot depends on the seed and their first face's name alone. */
function heldOutFaces(
  persons: readonly (readonly GatheredFace[])[],
  { heldOut, share, seed }: SplitOptions,
): Set<GatheredFace> {
  const patterns = heldOut.map((name) => {
    const text = name.split('*').map((part) => part.replace(/[\\^$.|?+()[\]{}]/g, '\\$&'));
    return { name, pattern: new RegExp(`^${text.join('.*')}$`) };
  });
  const matches = (face: GatheredFace, pattern: RegExp): boolean =>
    pattern.test(face.id) || pattern.test(face.source.name);
  const unknown = patterns.filter(({ pattern }) => !persons.flat().some((face) => matches(face, pattern)));
  if (unknown.length) {
    const names = unknown.map(({ name }) => name).join(', ');
    const known = persons
      .flat()
      .map(({ id }) => id)
      .sort();
    throw new ReflError('ERR_OPTION', `no face is named ${names}: there are ${known.join(', ')}`);
  }
  const isNamed = (person: readonly GatheredFace[]): boolean =>
    person.some((face) => patterns.some(({ pattern }) => matches(face, pattern)));
  const named = persons.filter(isNamed);
  const lot = ([{ id }]: readonly GatheredFace[]): number => new Draws(seed, ...Buffer.from(id)).uniform();
  const others = persons.filter((person) => !isNamed(person)).sort((a, b) => lot(a) - lot(b));
  const drawn = others.slice(0, Math.max(0, Math.round(share * persons.length) - named.length));
  return new Set([...named, ...drawn].flat());
}

interface MadeMorph extends MorphOptions {
  readonly file: string;
  readonly first: string;
  readonly second: string;
  readonly mirrored: boolean;
}

/** Morph i depends on the seed, i and the faces alone. */
async function writeMorphs(
  device: Device,
  faces: readonly GatheredFace[],
  persons: readonly (readonly GatheredFace[])[],
  folder: string,
  { crop, morphs, seed, signal, onMorph }: DatasetOptions,
): Promise<MadeMorph[]> {
  if (!morphs) return [];
  const usable = faces.filter(({ wide }) => turn(wide) < mostTurned);
  using morpher = await Morpher.create(device, crop.size + 2 * crop.margin);
  await mkdir(join(folder, 'morphs'));
  const made: MadeMorph[] = [];
  for (let i = 0; i < morphs; i++) {
    signal?.throwIfAborted();
    const draws = new Draws(seed, i);
    const first = usable[draws.below(usable.length)];
    const own = persons.find((person) => person.includes(first));
    const others = usable.filter((face) => !own!.includes(face));
    if (!others.length) throw new ReflError('ERR_OPTION', 'morphs need two people for training, and there are fewer');
    const second = others[draws.below(others.length)];
    const mirrored = draws.uniform() < 0.5;
    const options = drawMorph(draws);
    const file = `morphs/${String(i).padStart(4, '0')}.png`;
    const morph = await morpher.morph(first.wide, mirrored ? await mirror(second.wide) : second.wide, options);
    await writeAtomic(join(folder, file), await encodePng(morph));
    made.push({ file, first: first.id, second: second.id, mirrored, ...options });
    onMorph?.(i + 1);
  }
  return made;
}

/**
 * One half shows the first face in another shape, and a third the second one's features in the first one's hair: both are as
 * sharp as a photograph. Only the rest mixes features, where what does not coincide blurs.
 */
function drawMorph(draws: Draws): MorphOptions {
  const kind = draws.uniform();
  const [shape, texture] = [draws.uniform(0.2, 0.8), draws.uniform(0.3, 0.7)];
  return { shape, texture: kind < 0.5 ? 0 : kind < 0.85 ? 1 : texture };
}

async function mirror({ image, landmarks }: AlignedFace): Promise<AlignedFace> {
  const data = await sharpOf(image).flop().raw().toBuffer();
  return { image: { ...image, data }, landmarks: mirrorLandmarks(landmarks, image.width) };
}

/** How far a face is turned: the distance of the nose's ridge to the farther end of the jaw, by that to the nearer one. */
function turn({ landmarks }: AlignedFace): number {
  const [left, ridge, right] = [landmarks[1].x, landmarks[28].x, landmarks[15].x];
  const [a, b] = [Math.max(1, ridge - left), Math.max(1, right - ridge)];
  return Math.max(a / b, b / a);
}
