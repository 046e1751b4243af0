import { input, type Tensor } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import { FaceLandmarks, SsdDetector, TinyDetector } from '../models/faceapi.ts';
import { needTensor } from '../models/faceapi_weights.ts';
import type { Device, Parameters, Program } from '../runtime/index.ts';
import { apply, type Box, type Face, fivePoints, innerFace, invert, type Point } from './align.ts';
import { cropFace } from './crop.ts';
import { loadNetwork } from './networks.ts';
import { enlarged, resample, type Square, shrunken, squareOf } from './squares.ts';

interface Candidate {
  readonly box: Box;
  readonly score: number;
}

/** Scores from which a detection counts as a face; the small detector also fires on hands and folds, at up to 0.5. */
const limits = { ssd: 0.5, tiny: 0.6 };
/** Boxes that share more of their union, or of the smaller one, than this show one face. */
const sameFace = { union: 0.4, smaller: 0.6 };
/**
 * Where a photograph shows no face, it is looked at again this many times smaller, and sharpened: blur and noise shrink with
 * it. Of faces that fill a 320 x 320 picture, damaged as the default model is trained, 2 of 23 are found at full size, and 22
 * when it is four times smaller.
 */
const shrinks = [1, 2, 4];

/**
 * Finds faces in photographs, and their landmarks, with the networks of @vladmandic/face-api on a device of ours.
 *
 * Two detectors look at the whole photograph, and what either is sure of counts: SSD finds small and sharp faces, the small
 * YOLO large ones too blurred for it. A face should be at least about 1/30 of the photograph's longer side.
 */
export class FaceFinder {
  private readonly device: Device;
  private readonly parameters: Parameters;
  private readonly programs: {
    readonly ssd: Program;
    readonly tiny: Program;
    readonly landmarks: Program;
  };

  private constructor(device: Device, parameters: Parameters, programs: FaceFinder['programs']) {
    this.device = device;
    this.parameters = parameters;
    this.programs = programs;
  }

  /** Reads the networks. Throws ERR_FILE or ERR_WEIGHTS where the package's files are missing or not as they should be. */
  static async load(device: Device): Promise<FaceFinder> {
    const parameters = device.parameters();
    try {
      const ssd = await loadNetwork(parameters, 'ssd_mobilenetv1', (stored) => {
        return new SsdDetector(needTensor(stored, 'Output/extra_dim').values);
      });
      const tiny = await loadNetwork(parameters, 'tiny_face_detector', () => new TinyDetector());
      const landmarks = await loadNetwork(parameters, 'face_landmark_68', () => new FaceLandmarks());
      const image = (size: number) => input('image', [1, size, size, 3]);
      const compile = (outputs: Record<string, Tensor>): Promise<Program> =>
        device.compile({ outputs }, { parameters });
      return new FaceFinder(device, parameters, {
        ssd: await compile({ ...ssd.forward(image(SsdDetector.size)) }),
        tiny: await compile({ ...tiny.forward(image(TinyDetector.size)) }),
        landmarks: await compile({ points: landmarks.forward(image(FaceLandmarks.size)) }),
      });
    } catch (error) {
      parameters.dispose();
      throw error;
    }
  }

  /** The faces of a photograph, the surest first. */
  async find(photograph: Rgb): Promise<Face[]> {
    let found: Candidate[] = [];
    for (const shrink of shrinks) {
      const { ssd, tiny } = await this.candidates(shrink > 1 ? await shrunken(photograph, shrink) : photograph, limits);
      // SSD's boxes are the tighter ones, so they go first where both see a face.
      found = withoutRepeats([...ssd, ...tiny]);
      if (shrink > 1) found = found.map(({ score, box }) => ({ score, box: enlarged(box, photograph, shrink) }));
      if (found.length) break;
    }
    const faces: Face[] = [];
    for (const candidate of found) {
      const boxes = growths.map((factor) => grown(candidate.box, factor, photograph));
      const looks = await Promise.all(boxes.map((box) => this.landmarksIn(photograph, box, true)));
      faces.push(await this.refine(photograph, { ...candidate, landmarks: medianPoints(looks) }));
    }
    return faces.sort((a, b) => b.score - a.score);
  }

  /** What each detector finds above its limit, the surest first, one face perhaps several times. */
  async candidates(
    photograph: Rgb,
    limits: Record<'ssd' | 'tiny', number>,
  ): Promise<Record<'ssd' | 'tiny', Candidate[]>> {
    const { width, height } = photograph;
    const square = await squareOf(
      photograph,
      { left: 0, top: 0, width, height },
      { place: 'start', longest: 4 * SsdDetector.size },
    );
    const { ssd, tiny } = this.programs;
    return {
      ssd: await this.detect(ssd, SsdDetector.size, limits.ssd, square, photograph),
      tiny: await this.detect(tiny, TinyDetector.size, limits.tiny, square, photograph),
    };
  }

  /** The landmarks of the face in a box; of a blurred one only where it is sharpened before. */
  async landmarksIn(photograph: Rgb, box: Box, sharpened: boolean): Promise<Point[]> {
    const { size } = FaceLandmarks;
    const [left, top, width, height] = [box.left, box.top, box.width, box.height].map(Math.floor);
    const square = await squareOf(
      photograph,
      { left, top, width, height },
      { place: 'middle', sharpened, longest: sharpened ? 2 * size : Infinity },
    );
    const image = await resample(this.device, square.image, size);
    const { points } = await this.programs.landmarks.run({ image });
    return Array.from({ length: 68 }, (_, i) => ({
      x: left + points[2 * i] * square.side - square.left,
      y: top + points[2 * i + 1] * square.side - square.top,
    }));
  }

  private async detect(
    program: Program,
    size: number,
    limit: number,
    square: Square,
    { width, height }: Rgb,
  ): Promise<Candidate[]> {
    const { boxes, scores } = await program.run({ image: await resample(this.device, square.image, size) });
    const found: Candidate[] = [];
    scores.forEach((score, i) => {
      if (score <= limit) return;
      const [left, top, right, bottom] = boxes.subarray(4 * i, 4 * i + 4);
      const x = Math.max(0, left * square.side);
      const y = Math.max(0, top * square.side);
      const box = {
        left: x,
        top: y,
        width: Math.min(width, right * square.side) - x,
        height: Math.min(height, bottom * square.side) - y,
      };
      if (box.width >= 1 && box.height >= 1) found.push({ box, score });
    });
    return found.sort((a, b) => b.score - a.score);
  }

  /**
   * The face with landmarks found anew in an upright crop: the network saw few faces that lean. Where they land elsewhere, as
   * with profiles and strong blur, neither can be trusted, and the face stays as it was.
   */
  private async refine(photograph: Rgb, face: Face): Promise<Face> {
    const size = 2 * FaceLandmarks.size;
    const map = innerFace(face, size);
    const chip = await cropFace(this.device, photograph, map, size);
    const points = await this.landmarksIn(chip, { left: 0, top: 0, width: size, height: size }, true);
    const back = invert(map);
    const refined = { ...face, landmarks: points.map((point) => apply(back, point)) };
    const [before, after] = [face, refined].map(({ landmarks }) => fivePoints(landmarks));
    const eyes = Math.hypot(before[0].x - before[1].x, before[0].y - before[1].y);
    const moved = Math.max(...before.map(({ x, y }, i) => Math.hypot(after[i].x - x, after[i].y - y)));
    return moved < 0.4 * eyes ? refined : face;
  }

  /** Frees the networks. Safe to call twice. */
  dispose(): void {
    for (const program of Object.values(this.programs)) program.dispose();
    this.parameters.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Detections without those that show the face of one before them. */
function withoutRepeats(found: readonly Candidate[]): Candidate[] {
  const kept: Candidate[] = [];
  for (const candidate of found) {
    if (!kept.some(({ box }) => repeats(box, candidate.box))) kept.push(candidate);
  }
  return kept;
}

function repeats(a: Box, b: Box): boolean {
  const width = Math.min(a.left + a.width, b.left + b.width) - Math.max(a.left, b.left);
  const height = Math.min(a.top + a.height, b.top + b.height) - Math.max(a.top, b.top);
  if (width <= 0 || height <= 0) return false;
  const shared = width * height;
  const [areaA, areaB] = [a.width * a.height, b.width * b.height];
  return shared / (areaA + areaB - shared) > sameFace.union || shared / Math.min(areaA, areaB) > sameFace.smaller;
}

/** The network is asked about each box at these sizes, and the median counts: one look may go wrong. */
const growths = [1, 1.15, 1.3];

function grown(box: Box, factor: number, { width, height }: Rgb): Box {
  const [dx, dy] = [(box.width * (factor - 1)) / 2, (box.height * (factor - 1)) / 2];
  const [left, top] = [Math.max(0, box.left - dx), Math.max(0, box.top - dy)];
  const [right, bottom] = [Math.min(width, box.left + box.width + dx), Math.min(height, box.top + box.height + dy)];
  return { left, top, width: right - left, height: bottom - top };
}

function medianPoints(looks: readonly (readonly Point[])[]): Point[] {
  const median = (values: number[]): number => values.sort((a, b) => a - b)[values.length >> 1];
  return looks[0].map((_, i) => ({
    x: median(looks.map((look) => look[i].x)),
    y: median(looks.map((look) => look[i].y)),
  }));
}
