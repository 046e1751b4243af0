import {
  ABREAST,
  abreast,
  blur,
  type DegradeRanges,
  Degrader,
  drawDegradation,
  gaussianKernel,
  sideFor,
} from '../data/degrade.ts';
import { Draws } from '../data/draws.ts';
import { loadNetwork } from '../faces/networks.ts';
import { l2Normalize } from '../graph/ops/compose.ts';
import { add, affine, cast, clamp, square, sub } from '../graph/ops/elementwise.ts';
import { reshape } from '../graph/ops/layout.ts';
import { mean, sum } from '../graph/ops/reduce.ts';
import { resize } from '../graph/ops/resample.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import { psnr, ssim } from '../metrics/fidelity.ts';
import { FaceRecognition } from '../models/faceapi.ts';
import { type Device, evaluate, type Parameters, type Program } from '../runtime/index.ts';

/** Fidelity of a picture to its original. */
export interface Fidelity {
  /** dB, over RGB. */
  readonly psnr: number;
  readonly ssim: number;
  /** Distance of face recognition features, see {@link featureDistance}; smaller is nearer. */
  readonly distance: number;
}

/** A network that sees images [N, H, W, 3] of 0 to 255 in several maps of features, [N, h, w, C] each. */
export interface FeatureNetwork {
  features(images: Tensor): Tensor[];
}

/**
 * Distance of two faces [N, H, W, 3] in [0, 1] in the features of a network, which looks at them at `side` pixels: in each of
 * its maps the squared difference of features of unit length, summed over channels and averaged over positions; the maps
 * added; [N]. Of LPIPS's form, with other networks and without learned weights: not LPIPS. Where nothing else is said it is
 * one of face-api's recognition network, in its four stages.
 */
export function featureDistance(
  network: FeatureNetwork,
  a: Tensor,
  b: Tensor,
  side: number = FaceRecognition.size,
): Tensor {
  const maps = (x: Tensor): Tensor[] =>
    network.features(affine(clamp(resize(x, [side, side], { mode: 'bilinear', antialias: true }), 0, 1), 255));
  const theirs = maps(b);
  return maps(a)
    .map((features, i) => mean(sum(square(sub(l2Normalize(features), l2Normalize(theirs[i]))), [-1]), [1, 2]))
    .reduce((total, distance) => add(total, distance));
}

/**
 * The classical unsharp mask of images [1, H, W, 3] in [0, 1]: what a Gaussian blur of deviation 2 pixels takes away is
 * added once more, 2 x - blur(x), clipped to [0, 1].
 */
export function unsharpMask(x: Tensor): Tensor {
  const gaussian = { sigmaX: 2, sigmaY: 2, theta: 0 };
  const side = sideFor(gaussian);
  const shape = [ABREAST, 1, side, side + ABREAST - 1];
  const kernels = constant(abreast(gaussianKernel(gaussian, side), side), shape, 'f32');
  return clamp(sub(affine(x, 2), blur(reshape(x, x.shape.slice(1)), kernels)), 0, 1);
}

/** What is compared: the degraded picture itself, two classical remedies, and the model. */
export const contenders = ['input', 'bicubic', 'unsharp', 'model'] as const;
export type Contender = (typeof contenders)[number];

export interface QualityRow {
  readonly name: string;
  readonly fidelity: Readonly<Record<Contender, Fidelity>>;
}

export interface QualityOptions {
  readonly ranges?: DegradeRanges;
  /** Degradations drawn for each face. */
  readonly draws: number;
  readonly seed: number;
  /** Restores one degraded square. */
  readonly restore: (degraded: Rgb) => Promise<Rgb>;
}

/**
 * Degrades clean aligned faces (all of one square size) with seeded draws, and compares with the originals: the degraded
 * face (enlarged bilinearly), the same enlarged bicubically from its lowest resolution, the degraded face under an
 * {@link unsharpMask}, and the restored one. One row a face and draw.
 */
export async function compareQuality(
  device: Device,
  faces: readonly { name: string; clean: Rgb }[],
  { ranges, draws: count, seed, restore }: QualityOptions,
): Promise<QualityRow[]> {
  using degrader = new Degrader(device);
  using parameters = device.parameters();
  const { width: side } = faces[0].clean;
  using program = await fidelityProgram(device, parameters, side);
  using sharpen = await device.compile({ outputs: { image: toBytes(unsharpMask(bytes('image', side, side))) } });
  const compare = async (a: Rgb, b: Rgb): Promise<Fidelity> => {
    const values = await program.run({ a: a.data, b: b.data });
    return { psnr: values.psnr[0], ssim: values.ssim[0], distance: values.distance[0] };
  };
  const rows: QualityRow[] = [];
  for (const [index, { name, clean }] of faces.entries()) {
    for (let draw = 0; draw < count; draw++) {
      const { small, image } = await degrader.degrade(clean, drawDegradation(new Draws(seed, index, draw), ranges));
      const degraded = { data: Uint8Array.from(image, (v) => v * 255 + 0.5), width: side, height: side };
      const sharpened = await sharpen.run({ image: degraded.data });
      rows.push({
        name,
        fidelity: {
          input: await compare(degraded, clean),
          bicubic: await compare(await enlargeBicubic(device, small, side), clean),
          unsharp: await compare({ ...degraded, data: sharpened.image as Uint8Array }, clean),
          model: await compare(await restore(degraded), clean),
        },
      });
    }
  }
  return rows;
}

/** Averages of all rows, by contender. */
export function meanFidelity(rows: readonly QualityRow[]): Record<Contender, Fidelity> {
  const average = (contender: Contender, key: keyof Fidelity): number =>
    rows.reduce((total, { fidelity }) => total + fidelity[contender][key], 0) / rows.length;
  const of = (contender: Contender): Fidelity => ({
    psnr: average(contender, 'psnr'),
    ssim: average(contender, 'ssim'),
    distance: average(contender, 'distance'),
  });
  return Object.fromEntries(contenders.map((c) => [c, of(c)])) as Record<Contender, Fidelity>;
}

const bytes = (name: string, h: number, w: number): Tensor =>
  affine(cast(input(name, [1, h, w, 3], 'u8'), 'f32'), 1 / 255);

const toBytes = (x: Tensor): Tensor => cast(affine(clamp(x, 0, 1), 255, 0.5), 'u8');

async function fidelityProgram(device: Device, parameters: Parameters, side: number): Promise<Program> {
  const network = await loadNetwork(parameters, 'face_recognition', () => new FaceRecognition());
  const [a, b] = [bytes('a', side, side), bytes('b', side, side)];
  const outputs = { psnr: psnr(a, b), ssim: ssim(a, b), distance: featureDistance(network, a, b) };
  return device.compile({ outputs }, { parameters });
}

async function enlargeBicubic(device: Device, { data, width, height }: Rgb, side: number): Promise<Rgb> {
  const image = toBytes(resize(bytes('small', height, width), [side, side], { mode: 'bicubic' }));
  const outputs = await evaluate(device, { image }, { small: data });
  return { data: outputs.image as Uint8Array, width: side, height: side };
}
