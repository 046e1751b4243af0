import { alignment, apply, type Face, scaleOf } from '../faces/align.ts';
import { cropFace } from '../faces/crop.ts';
import { FaceFinder } from '../faces/finder.ts';
import { FaceRecogniser } from '../faces/recogniser.ts';
import { decodeImage, type Rgb } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import type { AlignedFace } from './morph.ts';

/** A picture file, and what its faces are named after: `sample1` for `sample1_0` and so on. */
export interface Photograph {
  readonly name: string;
  readonly path: string;
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

/** Finds and aligns every face of photographs, with the networks of @vladmandic/face-api. */
export class FaceGatherer {
  private readonly device: Device;
  private readonly finder: FaceFinder;
  private readonly recogniser: FaceRecogniser;
  private readonly crop: CropSize;

  private constructor(device: Device, finder: FaceFinder, recogniser: FaceRecogniser, crop: CropSize) {
    this.device = device;
    this.finder = finder;
    this.recogniser = recogniser;
    this.crop = crop;
  }

  static async load(device: Device, crop: CropSize): Promise<FaceGatherer> {
    const finder = await FaceFinder.load(device);
    try {
      return new FaceGatherer(device, finder, await FaceRecogniser.load(device), crop);
    } catch (error) {
      finder.dispose();
      throw error;
    }
  }

  /** The faces of one photograph, and what was lost or guessed in reading it. Throws ERR_FILE, ERR_IMAGE. */
  async gather(source: Photograph): Promise<{ faces: GatheredFace[]; notes: readonly string[] }> {
    const { device, finder, recogniser } = this;
    const { size, margin } = this.crop;
    const picture = await decodeImage(source.path);
    const faces: GatheredFace[] = [];
    for (const [number, face] of (await finder.find(picture)).entries()) {
      const map = alignment(face, size);
      const wideMap = alignment(face, size, margin);
      faces.push({
        id: `${source.name}_${number}`,
        source,
        face,
        crop: await cropFace(device, picture, map, size),
        wide: {
          image: await cropFace(device, picture, wideMap, size + 2 * margin),
          landmarks: face.landmarks.map((point) => apply(wideMap, point)),
        },
        scale: scaleOf(map),
        embedding: await recogniser.embed(picture, face),
      });
    }
    return { faces, notes: picture.notes };
  }

  /** Frees the networks. Safe to call twice. */
  dispose(): void {
    this.finder.dispose();
    this.recogniser.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Embeddings nearer than this show one person. In the package's photographs pairs of one person lie at 0.40, others from 0.50. */
const samePerson = 0.45;

export const distance = (a: Float32Array, b: Float32Array): number => Math.hypot(...a.map((v, i) => v - b[i]));

/**
 * The faces of each person, by single linkage: a face joins a person when it is near to any face of theirs. Faces of one
 * photograph are of different people, so those alone never join.
 */
export function groupPersons<F extends Pick<GatheredFace, 'embedding' | 'source'>>(faces: readonly F[]): F[][] {
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
