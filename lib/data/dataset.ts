import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { ReflError } from '../errors.ts';
import { FaceFinder } from '../faces/finder.ts';
import { FaceRecogniser } from '../faces/recogniser.ts';
import { writeAtomic } from '../image/files.ts';
import { encodePng, sharpOf } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import { Draws } from './draws.ts';
import { distance, type GatheredFace, gatherFaces, groupPersons, type Photograph } from './faces.ts';
import { type AlignedFace, Morpher, type MorphOptions, mirrorLandmarks } from './morph.ts';

export interface DatasetOptions {
  readonly out: string;
  /** Faces (`sample1_0`) or whole photographs (`astronaut`) whose people take no part in training. */
  readonly heldOut: readonly string[];
  /** Morphs to make between the faces for training. */
  readonly morphs: number;
  readonly seed: number;
  readonly onProgress?: (done: number, total: number) => void;
}

/** What `manifest.json` says of one crop. */
interface ManifestFace {
  readonly file: string;
  readonly wide: string;
  readonly person: string;
  readonly source: string;
  readonly licence: string;
  readonly scale: number;
}

const size = 256;
const margin = 32;
/** Faces that lean so far to the side that landmarks lie on one another make no morphs: width of the nearer to that of the farther cheek. */
const mostTurned = 4;

/**
 * Writes a dataset of aligned faces: OUT/train and OUT/heldout with crops of 256 x 256, OUT/train320 and OUT/heldout320 with
 * the same crops and 32 pixels around them, OUT/morphs with morphs of 320 x 320 between different persons for training, and
 * OUT/manifest.json with the person, source and licence of each. A person is in one set only.
 *
 * Throws ERR_OPTION where `heldOut` names a face that was not found.
 *
 * @returns the numbers of faces and persons, and the smallest distance between embeddings of the two sets
 */
export async function writeFaceDataset(
  device: Device,
  photographs: readonly Photograph[],
  { out, heldOut, morphs, seed, onProgress }: DatasetOptions,
): Promise<{ faces: number; persons: number; nearest: number }> {
  using finder = await FaceFinder.load(device);
  using recogniser = await FaceRecogniser.load(device);
  const faces = await gatherFaces(device, finder, recogniser, photographs, { size, margin });
  const persons = groupPersons(faces);
  const held = heldOutFaces(persons, heldOut);
  const sets = { train: faces.filter((face) => !held.has(face)), heldout: [...held] };
  for (const folder of ['train', 'train320', 'heldout', 'heldout320', 'morphs'])
    await mkdir(join(out, folder), { recursive: true });

  const manifest: ManifestFace[] = [];
  for (const [set, members] of Object.entries(sets)) {
    for (const face of members) {
      const [file, wide] = [`${set}/${face.id}.png`, `${set}320/${face.id}.png`];
      await writeAtomic(join(out, file), await encodePng(face.crop));
      await writeAtomic(join(out, wide), await encodePng(face.wide.image));
      const person = persons.find((p) => p.includes(face))![0].id;
      const { path, licence } = face.source;
      manifest.push({ file, wide, person, source: path, licence, scale: face.scale });
    }
  }
  const made = await writeMorphs(device, sets.train, persons, { out, heldOut, morphs, seed, onProgress });
  const nearest = Math.min(...sets.train.flatMap((a) => sets.heldout.map((b) => distance(a.embedding, b.embedding))));
  const summary = { faces: manifest, morphs: made, nearest };
  await writeAtomic(join(out, 'manifest.json'), Buffer.from(`${JSON.stringify(summary, null, 2)}\n`));
  return { faces: faces.length, persons: persons.length, nearest };
}

function heldOutFaces(persons: readonly (readonly GatheredFace[])[], names: readonly string[]): Set<GatheredFace> {
  const named = (face: GatheredFace, name: string): boolean =>
    face.id === name || face.id.replace(/_\d+$/, '') === name;
  const unknown = names.filter((name) => !persons.flat().some((face) => named(face, name)));
  if (unknown.length) {
    const known = persons.flat().map(({ id }) => id);
    throw new ReflError('ERR_OPTION', `no face is named ${unknown.join(', ')}: there are ${known.join(', ')}`);
  }
  return new Set(persons.filter((person) => person.some((face) => names.some((name) => named(face, name)))).flat());
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
  { out, morphs, seed, onProgress }: DatasetOptions,
): Promise<MadeMorph[]> {
  const usable = faces.filter(({ wide }) => turn(wide) < mostTurned);
  using morpher = await Morpher.create(device, size + 2 * margin);
  const made: MadeMorph[] = [];
  for (let i = 0; i < morphs; i++) {
    const draws = new Draws(seed, i);
    const first = usable[draws.below(usable.length)];
    const own = persons.find((person) => person.includes(first))!;
    const others = usable.filter((face) => !own.includes(face));
    if (!others.length)
      throw new ReflError('ERR_OPTION', `morphs need two people for training, the photographs show ${persons.length}`);
    const second = others[draws.below(others.length)];
    const mirrored = draws.uniform() < 0.5;
    const options = drawMorph(draws);
    const file = `morphs/${String(i).padStart(4, '0')}.png`;
    const morph = await morpher.morph(first.wide, mirrored ? await mirror(second.wide) : second.wide, options);
    await writeAtomic(join(out, file), await encodePng(morph));
    made.push({ file, first: first.id, second: second.id, mirrored, ...options });
    onProgress?.(i + 1, morphs);
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
