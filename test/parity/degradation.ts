import {
  ABREAST,
  abreast,
  type Blur,
  blur,
  gaussianKernel,
  KERNEL_SIDE,
  reduceNoisy,
  sideFor,
  throughJpeg,
} from '../../lib/data/degrade.ts';
import { affine } from '../../lib/graph/ops/elementwise.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { resize } from '../../lib/graph/ops/resample.ts';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, evaluate } from '../../lib/runtime/index.ts';
import type { Golden } from './golden.ts';
import { toNchw, toNhwc } from './module.ts';
import { type Report, relativeError } from './report.ts';

/** Limits of ../shared/golden/README.md. */
const limits = { kernel: 1e-6, blur: 1e-6, resize: 3e-6, chain: 5e-6 } as const;

/**
 * JPEG encoders need not agree bit for bit, so what counts is how far the decoded picture is from the original on average,
 * relative to what the reference loses. On the stored pictures sharp's is no farther and no nearer.
 */
const jpegLimit = 0.02;

interface Config {
  kernels: Record<string, { sigma_x: number; sigma_y: number; theta: number }>;
  resize: Record<string, { down_hw: [number, number] } | number>;
  chains: Record<string, { kernel: string; noise_sigma_255: number; down_hw: [number, number] }>;
}

/** Bytes that may differ by one level: values that lie within rounding of a half. */
const ties = 1e-3;

export async function compareDegradation(device: Device, golden: Golden, report: Report): Promise<void> {
  const config = golden.json<Config>('config');
  const blurs = Object.fromEntries(
    Object.entries(config.kernels).map(([name, { sigma_x, sigma_y, theta }]) => [
      name,
      { sigmaX: sigma_x, sigmaY: sigma_y, theta },
    ]),
  );
  for (const [name, shape] of Object.entries(blurs)) {
    const error = relativeError(gaussianKernel(shape), await golden.read(`out.kernel.${name}`));
    report.add(`${golden.name} out.kernel.${name}`, error, limits.kernel);
  }

  const blurred = (x: Tensor, shape: Blur, side: number): Tensor => {
    const kernels = abreast(gaussianKernel(shape, side), side);
    const [, h, w, c] = x.shape;
    return blur(reshape(x, [h, w, c]), constant(kernels, [ABREAST, 1, side, side + ABREAST - 1], 'f32'));
  };
  const image = toNhwc(golden.feed('in.x'));
  const outputs: Record<string, Tensor> = {};
  for (const [name, shape] of Object.entries(blurs)) {
    outputs[`blur.${name}`] = toNchw(blurred(image, shape, KERNEL_SIDE));
    outputs[`blur.${name} (smallest kernel)`] = toNchw(blurred(image, shape, sideFor(shape)));
  }
  const [, height, width] = image.shape;
  for (const [name, entry] of Object.entries(config.resize)) {
    if (typeof entry !== 'object') continue;
    const down = resize(image, entry.down_hw, { mode: 'bilinear' });
    outputs[`resize.${name}.down`] = toNchw(down);
    outputs[`resize.${name}.up`] = toNchw(resize(down, [height, width], { mode: 'bilinear' }));
  }
  for (const [name, { kernel, noise_sigma_255, down_hw }] of Object.entries(config.chains)) {
    const soft = blurred(toNhwc(golden.feed(`in.${name}.x`)), blurs[kernel], sideFor(blurs[kernel]));
    const deviation = constant(Float32Array.of(noise_sigma_255 / 255), [1], 'f32');
    const noisy = reduceNoisy(soft, down_hw, toNhwc(golden.feed(`in.${name}.noise`)), deviation);
    const lq = resize(noisy, [height, width], { mode: 'bilinear' });
    outputs[`${name}.noisy_clipped`] = toNchw(noisy);
    outputs[`${name}.lq`] = toNchw(lq);
    outputs[`${name}.lq_rounded_u8`] = affine(lq, 255);
  }
  const feeds = golden.keys('in.').filter((key) => key !== 'jpeg.x_u8');
  const values = await evaluate(device, outputs, await golden.values(feeds.map((key) => `in.${key}`)));
  for (const key of golden.keys('out.')) {
    if (/^(kernel|jpeg)\./.test(key) || outputs[key]) continue;
    report.fail(`${golden.name} out.${key}`, 'the configuration does not say what this is');
  }
  for (const [name, value] of Object.entries(values)) {
    const [key] = name.split(' ');
    const label = `${golden.name} out.${name}`;
    const expected = await golden.read(`out.${key}`);
    if (key.endsWith('_u8')) {
      const bytes = Uint8ClampedArray.from(value, Number);
      report.add(label, relativeError(bytes, expected, 1), 1, 'levels');
      report.add(`${label} (bytes that differ)`, share(bytes, expected), ties);
    } else {
      const kind = key.split('.')[0];
      const limit = kind === 'blur' || kind === 'resize' ? limits[kind] : limits.chain;
      report.add(label, relativeError(value, expected), limit);
    }
  }
  await compareJpeg(golden, report);
}

async function compareJpeg(golden: Golden, report: Report): Promise<void> {
  const original = (await golden.read('in.jpeg.x_u8')) as Uint8Array;
  const [height, width] = golden.shape('in.jpeg.x_u8');
  for (const name of golden.keys('out.jpeg.').filter((key) => key.endsWith('_u8'))) {
    const { data } = await throughJpeg({ data: original, width, height }, Number(name.slice(1, -3)));
    const expected = await golden.read(`out.jpeg.${name}`);
    const loss = meanDifference(expected, original);
    const error = Math.abs(meanDifference(data, original) - loss) / loss;
    report.add(`${golden.name} out.jpeg.${name}`, error, jpegLimit, 'of the mean loss');
  }
}

/** The share of elements in which two arrays differ. */
const share = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).filter((v, i) => v !== b[i]).length / b.length;

/** Mean absolute difference. */
const meanDifference = (a: ArrayLike<number>, b: ArrayLike<number>): number =>
  Array.from(a).reduce((sum, v, i) => sum + Math.abs(v - b[i]), 0) / b.length;
