import { alignment, type Similarity, scaleOf } from '../faces/align.ts';
import { cropFace, pasteFace } from '../faces/crop.ts';
import type { FaceFinder } from '../faces/finder.ts';
import type { Rgb } from '../image/picture.ts';
import type { Device } from '../runtime/index.ts';
import type { Plan } from './plan.ts';

export interface PhotographOptions {
  readonly device: Device;
  readonly finder: FaceFinder;
  /** Side of the model's squares. */
  readonly size: number;
  /** How what lies around the faces is restored, if it is. */
  readonly around?: (photograph: Rgb) => Promise<Plan>;
  readonly signal?: AbortSignal;
}

/** No face that a detector could find has fewer pixels across. */
const smallestFace = 16;
/** Nor does one fill less of the longer side: the detectors see a photograph shrunk to 512 pixels. */
const smallestPart = 1 / 64;

/** From so many pixels of the photograph to one of the crop on, the user is told that detail is lost. */
const coarser = 1.25;

/** The faces of a photograph are found, aligned and cut out, and pasted back where they were. */
export async function planPhotograph(photograph: Rgb, options: PhotographOptions): Promise<Plan> {
  const { device, finder, size, signal } = options;
  const [shorter, longer] = [photograph.width, photograph.height].sort((a, b) => a - b);
  const hopeless = shorter < smallestFace || shorter < longer * smallestPart;
  const maps = hopeless ? [] : (await finder.find(photograph)).map((face) => alignment(face, size));
  const crops: Rgb[] = [];
  for (const map of maps) {
    signal?.throwIfAborted();
    crops.push(await cropFace(device, photograph, map, size));
  }
  const around = await options.around?.(photograph);
  return {
    crops: [...crops, ...(around?.crops ?? [])],
    faces: crops.length,
    notes: notesOn(maps, size, !!around),
    compose: async (restored) => {
      let image = (await around?.compose(restored.slice(crops.length))) ?? photograph;
      // The surest face comes first, and is to lie on top where two overlap.
      for (let i = crops.length - 1; i >= 0; i--) image = await pasteFace(device, image, restored[i], maps[i]);
      return image;
    },
  };
}

function notesOn(maps: readonly Similarity[], size: number, whole: boolean): string[] {
  if (!maps.length) return whole ? [] : ['no face was found: the picture is unchanged'];
  const large = maps.filter((map) => scaleOf(map) < 1 / coarser).length;
  return large
    ? [`${large} of ${maps.length} faces are larger than the model's ${size} pixels: their finest detail is lost`]
    : [];
}
