import { basename, parse } from 'node:path';
import { alignment, apply, type Face } from '../faces/align.ts';
import { cropFace } from '../faces/crop.ts';
import type { FaceFinder } from '../faces/finder.ts';
import type { FaceRecogniser } from '../faces/recogniser.ts';
import { decodeImage, type Rgb } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import type { AlignedFace } from './morph.ts';

/** A picture file and the terms it may be used under. */
export interface Photograph {
  readonly path: string;
  readonly licence: string;
}

/** Pixels a side of an aligned crop, and how many more the wider crop shows around it on each side. */
export interface CropSize {
  readonly size: number;
  readonly margin: number;
}

/** One face of a photograph, aligned. */
export interface GatheredFace {
  /** The photograph's name and the face's number in it, the surest first: `sample1_0`. */
  readonly id: string;
  readonly source: Photograph;
  readonly face: Face;
  readonly crop: Rgb;
  /** The crop with its margin, and the landmarks in it. */
  readonly wide: AlignedFace;
  /** Pixels of the crop for one of the photograph: above 1 the crop holds less detail than its size suggests. */
  readonly scale: number;
  readonly embedding: Float32Array;
}

/** Finds and aligns every face of some photographs. */
export async function gatherFaces(
  device: Device,
  finder: FaceFinder,
  recogniser: FaceRecogniser,
  photographs: readonly Photograph[],
  { size, margin }: CropSize,
): Promise<GatheredFace[]> {
  const gathered: GatheredFace[] = [];
  for (const source of photographs) {
    const picture = await decodeImage(source.path);
    const faces = await finder.find(picture);
    for (const [number, face] of faces.entries()) {
      const wideMap = alignment(face, size, margin);
      gathered.push({
        id: `${parse(basename(source.path)).name}_${number}`,
        source,
        face,
        crop: await cropFace(device, picture, alignment(face, size), size),
        wide: {
          image: await cropFace(device, picture, wideMap, size + 2 * margin),
          landmarks: face.landmarks.map((point) => apply(wideMap, point)),
        },
        scale: Math.hypot(wideMap.a, wideMap.b),
        embedding: await recogniser.embed(picture, face),
      });
    }
  }
  return gathered;
}

/** Embeddings nearer than this show one person. In the package's photographs pairs of one person lie at 0.40, others from 0.50. */
const samePerson = 0.45;

export const distance = (a: Float32Array, b: Float32Array): number => Math.hypot(...a.map((v, i) => v - b[i]));

/**
 * The faces of each person, by single linkage: a face joins a person when it is near to any face of theirs. Faces of one
 * photograph are of different people, so those alone never join.
 */
export function groupPersons<F extends { embedding: Float32Array; source: Photograph }>(faces: readonly F[]): F[][] {
  const persons: F[][] = [];
  for (const face of faces) {
    const near = (other: F): boolean =>
      other.source !== face.source && distance(other.embedding, face.embedding) < samePerson;
    const own = persons.filter((person) => person.some(near));
    const others = persons.filter((person) => !own.includes(person));
    persons.splice(0, persons.length, ...others, [...own.flat(), face]);
  }
  return persons;
}
