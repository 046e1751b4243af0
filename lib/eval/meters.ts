import { ReflError } from '../errors.ts';
import { type Face, fivePoints, innerFace, type Point } from '../faces/align.ts';
import { cropFace } from '../faces/crop.ts';
import { FaceFinder } from '../faces/finder.ts';
import { FaceRecogniser } from '../faces/recogniser.ts';
import type { TypedArray } from '../graph/dtype.ts';
import { cast, div, mul } from '../graph/ops/elementwise.ts';
import { sum } from '../graph/ops/reduce.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import { maniqaCrops } from '../metrics/maniqa.ts';
import { naturalMoments } from '../metrics/naturalness.ts';
import { niqe, niqeFeatures } from '../metrics/niqe.ts';
import type { Normal } from '../metrics/normal.ts';
import { FaceLandmarks } from '../models/faceapi.ts';
import { MANIQA } from '../models/maniqa.ts';
import { type Device, openDevice, type Parameters, type Program } from '../runtime/index.ts';

/** Measures one thing of a picture, where need be beside its reference, which then is as large. */
export interface Meter {
  measure(picture: Rgb, reference: Rgb, signal?: AbortSignal): Promise<number>;
  dispose(): void;
}

/** What a graph makes of a picture and its reference, each [1, H, W, 3] of bytes. Those it does not read are not fed. */
export type Trace = (picture: Tensor, reference: Tensor) => Record<string, Tensor>;

/** A picture's bytes as floats in [0, 1]. */
export const unit = (bytes: Tensor): Tensor => div(cast(bytes, 'f32'), 255);

/** Runs a graph on pictures. The program of the last size is kept: data sets have one. */
export class PictureProgram {
  readonly #device: Device;
  readonly #parameters: Parameters | undefined;
  readonly #trace: Trace;
  readonly #reads: readonly ('picture' | 'reference')[];
  #size = '';
  #program: Program | undefined;

  /** @param reads which of both the graph reads */
  constructor(
    device: Device,
    parameters: Parameters | undefined,
    trace: Trace,
    reads: readonly ('picture' | 'reference')[] = ['picture'],
  ) {
    this.#device = device;
    this.#parameters = parameters;
    this.#trace = trace;
    this.#reads = reads;
  }

  async run(picture: Rgb, reference: Rgb, signal?: AbortSignal): Promise<Record<string, TypedArray>> {
    const { width, height } = picture;
    const size = `${width}x${height}`;
    if (this.#size !== size) {
      this.dispose();
      const [x, y] = ['picture', 'reference'].map((name) => input(name, [1, height, width, 3], 'u8'));
      const outputs = this.#trace(x, y);
      this.#program = await this.#device.compile({ outputs }, { parameters: this.#parameters });
      this.#size = size;
    }
    const feeds = { picture: picture.data, reference: reference.data };
    return this.#program!.run(Object.fromEntries(this.#reads.map((name) => [name, feeds[name]])), { signal });
  }

  dispose(): void {
    this.#program?.dispose();
    this.#program = undefined;
    this.#size = '';
  }
}

/** A number that a graph computes, and perhaps the host finishes. */
export class GraphMeter implements Meter {
  readonly #program: PictureProgram;
  readonly #finish: (value: number) => number;

  constructor(
    device: Device,
    parameters: Parameters,
    trace: (picture: Tensor, reference: Tensor) => Tensor,
    { paired = false, finish = (value: number) => value } = {},
  ) {
    const reads = paired ? (['picture', 'reference'] as const) : (['picture'] as const);
    this.#program = new PictureProgram(device, parameters, (x, y) => ({ value: trace(x, y) }), reads);
    this.#finish = finish;
  }

  async measure(picture: Rgb, reference: Rgb, signal?: AbortSignal): Promise<number> {
    return this.#finish((await this.#program.run(picture, reference, signal)).value[0]);
  }

  dispose(): void {
    this.#program.dispose();
  }
}

/** {@link niqe} by the given statistics; on a CPU of its own, for float64. */
export class NaturalnessMeter implements Meter {
  readonly #cpu: Device;
  readonly #program: PictureProgram;
  readonly #pristine: Normal;

  private constructor(cpu: Device, pristine: Normal) {
    this.#cpu = cpu;
    this.#pristine = pristine;
    this.#program = new PictureProgram(cpu, undefined, (picture) => {
      const { full, half } = naturalMoments(picture);
      return { full, half };
    });
  }

  static async load(pristine: Normal): Promise<NaturalnessMeter> {
    return new NaturalnessMeter(await openDevice('cpu'), pristine);
  }

  async measure(picture: Rgb, reference: Rgb, signal?: AbortSignal): Promise<number> {
    const { full, half } = await this.#program.run(picture, reference, signal);
    return niqe(niqeFeatures({ full, half }), this.#pristine);
  }

  dispose(): void {
    this.#program.dispose();
    this.#cpu.dispose();
  }
}

/** MANIQA of all crops together, one at a time: attention among its 3072 channels takes 40 MB a crop. */
export class ManiqaMeter implements Meter {
  readonly #cut: PictureProgram;
  readonly #judge: Program;

  private constructor(cut: PictureProgram, judge: Program) {
    this.#cut = cut;
    this.#judge = judge;
  }

  static async load(device: Device, parameters: Parameters, network: MANIQA): Promise<ManiqaMeter> {
    const cut = new PictureProgram(device, parameters, (picture) => ({ crops: maniqaCrops(unit(picture)) }));
    const { scores, weights } = network.outputs(input('crop', [1, MANIQA.size, MANIQA.size, 3]));
    const outputs = { weighted: sum(mul(scores, weights)), weight: sum(weights) };
    return new ManiqaMeter(cut, await device.compile({ outputs }, { parameters }));
  }

  async measure(picture: Rgb, reference: Rgb, signal?: AbortSignal): Promise<number> {
    const crops = (await this.#cut.run(picture, reference, signal)).crops as Float32Array;
    const length = MANIQA.size * MANIQA.size * 3;
    let [weighted, weight] = [0, 0];
    for (let at = 0; at < crops.length; at += length) {
      const values = await this.#judge.run({ crop: crops.subarray(at, at + length) }, { signal });
      weighted += values.weighted[0];
      weight += values.weight[0];
    }
    return weighted / (weight + 1e-8);
  }

  dispose(): void {
    this.#cut.dispose();
    this.#judge.dispose();
  }
}

/** Works out something of a picture once, however often it is asked for. */
function once<T>(work: (picture: Rgb) => Promise<T>): (picture: Rgb) => Promise<T> {
  const known = new WeakMap<Rgb, Promise<T>>();
  return (picture) => {
    const found = known.get(picture) ?? work(picture);
    known.set(picture, found);
    return found;
  };
}

/** The faces of references, which several pictures share. */
export class ReferenceFaces {
  readonly device: Device;
  readonly finder: FaceFinder;
  readonly recogniser: FaceRecogniser;
  /** The surest face of a reference. Throws ERR_IMAGE where there is none. */
  readonly of: (reference: Rgb) => Promise<Face>;

  private constructor(device: Device, finder: FaceFinder, recogniser: FaceRecogniser) {
    this.device = device;
    this.finder = finder;
    this.recogniser = recogniser;
    this.of = once(async (reference) => {
      const [face] = await finder.find(reference);
      if (face) return face;
      throw new ReflError('ERR_IMAGE', 'no face was found in its reference');
    });
  }

  static async load(device: Device): Promise<ReferenceFaces> {
    const finder = await FaceFinder.load(device);
    try {
      return new ReferenceFaces(device, finder, await FaceRecogniser.load(device));
    } catch (error) {
      finder.dispose();
      throw error;
    }
  }

  dispose(): void {
    this.finder.dispose();
    this.recogniser.dispose();
  }
}

/**
 * How far face-api's 68 landmarks lie from those of the reference, on average, in per cent of the distance of its eyes. Both faces
 * are looked at where the reference has its own.
 */
export class LandmarkMeter implements Meter {
  readonly #faces: ReferenceFaces;
  readonly #ofReference = once((reference) => this.#landmarks(reference, reference));

  constructor(faces: ReferenceFaces) {
    this.#faces = faces;
  }

  async measure(picture: Rgb, reference: Rgb): Promise<number> {
    const [ours, theirs] = [await this.#landmarks(picture, reference), await this.#ofReference(reference)];
    const [left, right] = fivePoints(theirs);
    const apart = ours.reduce((total, { x, y }, i) => total + Math.hypot(x - theirs[i].x, y - theirs[i].y), 0);
    return (100 * apart) / ours.length / Math.hypot(left.x - right.x, left.y - right.y);
  }

  async #landmarks(picture: Rgb, reference: Rgb): Promise<Point[]> {
    const side = 2 * FaceLandmarks.size;
    const map = innerFace(await this.#faces.of(reference), side);
    const chip = await cropFace(this.#faces.device, picture, map, side);
    return this.#faces.finder.landmarksIn(chip, { left: 0, top: 0, width: side, height: side }, true);
  }

  /** The faces are the owner's. */
  dispose(): void {}
}

/** Distance of the numbers by which face-api's recognition network tells people apart, from 0; rarely under 0.5 for two people. */
export class PersonMeter implements Meter {
  readonly #faces: ReferenceFaces;
  readonly #ofReference = once((reference) => this.#embedding(reference, reference));

  constructor(faces: ReferenceFaces) {
    this.#faces = faces;
  }

  async measure(picture: Rgb, reference: Rgb): Promise<number> {
    const [ours, theirs] = [await this.#embedding(picture, reference), await this.#ofReference(reference)];
    return Math.hypot(...ours.map((v, i) => v - theirs[i]));
  }

  async #embedding(picture: Rgb, reference: Rgb): Promise<Float32Array> {
    return this.#faces.recogniser.embed(picture, await this.#faces.of(reference));
  }

  /** The faces are the owner's. */
  dispose(): void {}
}
