import sharp from 'sharp';
import { conv2d } from '../graph/ops/conv2d.ts';
import { add, affine, cast, clamp, mul } from '../graph/ops/elementwise.ts';
import { pad, reshape, slice, transpose } from '../graph/ops/layout.ts';
import { randomNormal } from '../graph/ops/random.ts';
import { resize } from '../graph/ops/resample.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import type { Device, Program } from '../runtime/index.ts';
import type { Draws } from './draws.ts';

/** A pair of bounds: values are drawn uniformly between them. */
export type Range = readonly [number, number];

export interface DegradeRanges {
  /** Standard deviation of the blur, in pixels. */
  readonly sigma: Range;
  /** Factor by which the image is made smaller. */
  readonly down: Range;
  /** Standard deviation of the noise, in 255ths. */
  readonly noise: Range;
  /** JPEG quality, whole numbers. */
  readonly jpeg: Range;
}

/** The default model's working range at 256 x 256. */
export const defaultRanges: DegradeRanges = { sigma: [0.1, 6], down: [1, 6], noise: [0, 15], jpeg: [30, 100] };

export interface Blur {
  /** Standard deviations along the kernel's two axes, in pixels. */
  readonly sigmaX: number;
  readonly sigmaY: number;
  /** Angle of the blur's first axis, radians. */
  readonly theta: number;
}

/** What was drawn for one image: with the image, it determines the result. */
export interface Degradation extends Blur {
  readonly down: number;
  readonly noise: number;
  readonly jpeg: number;
  /** Philox state of the noise. */
  readonly state: readonly [number, number, number, number];
}

/** Draws a degradation: an isotropic or an anisotropic blur with even odds, everything else uniform in its range. */
export function drawDegradation(draws: Draws, ranges: DegradeRanges = defaultRanges): Degradation {
  const within = ([low, high]: Range): number => draws.uniform(low, high);
  const sigmaX = within(ranges.sigma);
  const isotropic = draws.uniform() < 0.5;
  return {
    sigmaX,
    sigmaY: isotropic ? sigmaX : within(ranges.sigma),
    theta: isotropic ? 0 : draws.uniform(-Math.PI, Math.PI),
    down: within(ranges.down),
    noise: within(ranges.noise),
    jpeg: Math.floor(within(ranges.jpeg)),
    state: [draws.bits() | 0, draws.bits() | 0, 0, 0],
  };
}

/** Side of the blur kernel of the GFPGAN, CodeFormer and DiffBIR family. */
export const KERNEL_SIDE = 41;

/**
 * The Gaussian kernel exp(-v' S^-1 v / 2) on the grid -r..r in both axes, divided by its sum; S has the variances
 * sigmaX^2 and sigmaY^2 along axes turned by theta. Row-major float32, side x side.
 */
export function gaussianKernel({ sigmaX, sigmaY, theta }: Blur, side = KERNEL_SIDE): Float32Array {
  const [c, s] = [Math.cos(theta), Math.sin(theta)];
  const [a, b] = [1 / (sigmaX * sigmaX), 1 / (sigmaY * sigmaY)];
  const [xx, xy, yy] = [c * c * a + s * s * b, c * s * (a - b), s * s * a + c * c * b];
  const r = (side - 1) / 2;
  const values = Array.from({ length: side * side }, (_, i) => {
    const [x, y] = [(i % side) - r, Math.floor(i / side) - r];
    return Math.exp(-0.5 * (xx * x * x + 2 * xy * x * y + yy * y * y));
  });
  const total = values.reduce((p, q) => p + q);
  return Float32Array.from(values, (v) => v / total);
}

/** Sides of kernel that programs exist for. A smaller one is used where all it leaves out is under 1e-7 of the peak. */
const sides = [11, 21, 31, KERNEL_SIDE];

export const sideFor = ({ sigmaX, sigmaY }: Blur): number => {
  const reach = Math.sqrt(2 * Math.log(1e7)) * Math.max(sigmaX, sigmaY);
  return sides.find((side) => (side - 1) / 2 >= reach) ?? KERNEL_SIDE;
};

/** Pixels of the images whose programs are kept, at about 15 bytes each: 128 programs for images of 256 x 256. */
const keptPixels = 2 ** 23;

/** Frees a program, after the runs that others have begun or are about to. */
const release = (program: Promise<Program>): void => {
  program.then(
    (compiled) => compiled.dispose(),
    () => {},
  );
};

/** Both ends of the degradation: at its lowest resolution, and enlarged back to the size it came from. */
export interface Degraded {
  /** After JPEG, at the lowest resolution. */
  readonly small: Rgb;
  /** `small` enlarged bilinearly, float32 [H, W, 3] in [0, 1]. */
  readonly image: Float32Array;
}

/**
 * Degrades images as training of DiffBIR and DiffusionReward does: blur by a 41 x 41 Gaussian (reflected borders), bilinear
 * reduction, noise, JPEG, bilinear enlargement back. All but JPEG (by sharp) runs as programs on `device`, one
 * per size; the latest are kept until disposed.
 */
export class Degrader {
  private readonly device: Device;
  private readonly programs = new Map<string, { readonly program: Promise<Program>; readonly pixels: number }>();

  constructor(device: Device) {
    this.device = device;
  }

  async degrade({ data, width, height }: Rgb, degradation: Degradation): Promise<Degraded> {
    const { down, noise, jpeg, state } = degradation;
    const [w, h] = [Math.max(1, Math.floor(width / down)), Math.max(1, Math.floor(height / down))];
    const side = sideFor(degradation);
    const blur = await this.program('blur', [height, width, side], () => blurGraph(height, width, side));
    const { blurred } = await blur.run({ image: data, kernels: abreast(gaussianKernel(degradation, side), side) });
    const reduce = await this.program('reduce', [height, width, h, w], () => reduceGraph(height, width, h, w));
    const { noisy } = await reduce.run({ blurred, state: Int32Array.from(state), noise: Float32Array.of(noise / 255) });
    const small = await throughJpeg({ data: noisy as Uint8Array, width: w, height: h }, jpeg);
    const enlarge = await this.program('enlarge', [height, width, h, w], () => enlargeGraph(height, width, h, w));
    const { image } = await enlarge.run({ small: small.data });
    return { small, image: image as Float32Array };
  }

  /** The program for images of height x width. Sizes have no end, so those not used for the longest time make room. */
  private program(
    name: string,
    [height, width, ...more]: readonly number[],
    trace: () => Record<string, Tensor>,
  ): Promise<Program> {
    const key = [name, height, width, ...more].join(' ');
    const program = this.programs.get(key)?.program ?? this.device.compile({ outputs: trace() });
    this.programs.delete(key);
    this.programs.set(key, { program, pixels: height * width });
    let total = 0;
    for (const { pixels } of this.programs.values()) total += pixels;
    for (const [oldest, stale] of this.programs) {
      if (total <= keptPixels || oldest === key) break;
      this.programs.delete(oldest);
      release(stale.program);
      total -= stale.pixels;
    }
    return program;
  }

  dispose(): void {
    for (const { program } of this.programs.values()) release(program);
    this.programs.clear();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

const fromBytes = (x: Tensor): Tensor => affine(cast(x, 'f32'), 1 / 255);

/**
 * Neighbouring pixels that one position of the blur's convolution computes, as its output channels: channel i has the
 * kernel shifted by i. A convolution to a single channel would leave all but one lane of a vector idle.
 */
export const ABREAST = 32;

/** A side x side kernel as {@link ABREAST} kernels of side x (side + ABREAST - 1), each shifted by one more pixel. */
export function abreast(kernel: Float32Array, side: number): Float32Array {
  const width = side + ABREAST - 1;
  const out = new Float32Array(ABREAST * side * width);
  for (let i = 0; i < ABREAST; i++) {
    for (let y = 0; y < side; y++) out.set(kernel.subarray(y * side, (y + 1) * side), (i * side + y) * width + i);
  }
  return out;
}

/**
 * Blur of each colour plane: out[y, x] = sum of kernel times the reflected neighbourhood (a correlation).
 *
 * @param image [H, W, 3]
 * @param kernels what {@link abreast} makes of a kernel
 * @returns [1, H, W, 3]
 */
export function blur(image: Tensor, kernels: Tensor): Tensor {
  const [h, w] = image.shape;
  const r = (kernels.shape[2] - 1) / 2;
  const wide = Math.ceil(w / ABREAST) * ABREAST;
  // About zero the sum of up to 1681 products rounds less; the kernel's sum of 1 takes the shift back out.
  const planes = reshape(transpose(affine(image, 1, -0.5), [2, 0, 1]), [3, h, w, 1]);
  const bordered = pad(pad(planes, [0, r, r, 0], [0, r, r, 0], 'reflect'), [0, 0, 0, 0], [0, 0, wide - w, 0]);
  const blurred = reshape(conv2d(bordered, kernels, undefined, { stride: [1, ABREAST] }), [3, h, wide]);
  return affine(reshape(transpose(slice(blurred, [0, 0, 0], [3, h, w]), [1, 2, 0]), [1, h, w, 3]), 1, 0.5);
}

/** The image reduced to `size` [H, W] without antialiasing, with `deviation` times `noise` added, clipped to [0, 1]. */
export const reduceNoisy = (image: Tensor, size: readonly [number, number], noise: Tensor, deviation: Tensor): Tensor =>
  clamp(add(resize(image, size, { mode: 'bilinear' }), mul(noise, deviation)), 0, 1);

function blurGraph(h: number, w: number, side: number): Record<string, Tensor> {
  const kernels = input('kernels', [ABREAST, 1, side, side + ABREAST - 1]);
  return { blurred: blur(fromBytes(input('image', [h, w, 3], 'u8')), kernels) };
}

/** Rounded to bytes, as the JPEG encoder that comes next needs them. */
function reduceGraph(h: number, w: number, smallH: number, smallW: number): Record<string, Tensor> {
  const noise = randomNormal(input('state', [4], 'i32'), [1, smallH, smallW, 3]);
  const noisy = reduceNoisy(input('blurred', [1, h, w, 3]), [smallH, smallW], noise, input('noise', [1]));
  return { noisy: cast(affine(noisy, 255, 0.5), 'u8') };
}

function enlargeGraph(h: number, w: number, smallH: number, smallW: number): Record<string, Tensor> {
  const small = fromBytes(input('small', [1, smallH, smallW, 3], 'u8'));
  return { image: resize(small, [h, w], { mode: 'bilinear' }) };
}

/** An image as JPEG of `quality` leaves it. */
export async function throughJpeg({ data, width, height }: Rgb, quality: number): Promise<Rgb> {
  const jpeg = await sharp(data, { raw: { width, height, channels: 3 } })
    .jpeg({ quality })
    .toBuffer();
  return { data: await sharp(jpeg).raw().toBuffer(), width, height };
}
