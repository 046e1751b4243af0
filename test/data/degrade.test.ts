import { existsSync } from 'node:fs';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  ABREAST,
  abreast,
  type Blur,
  blur,
  Degrader,
  defaultRanges,
  drawDegradation,
  gaussianKernel,
  KERNEL_SIDE,
  reduceNoisy,
  sideFor,
} from '../../lib/data/degrade.ts';
import { Draws } from '../../lib/data/draws.ts';
import { reshape, transpose } from '../../lib/graph/ops/layout.ts';
import { resize } from '../../lib/graph/ops/resample.ts';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import type { Rgb } from '../../lib/image/picture.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { Golden } from '../parity/golden.ts';
import { close, sameBits } from '../support/assert.ts';

const test = suite('degradation');
let device: Device;
test.before(async () => {
  device = await openDevice('cpu');
});
test.after(() => device.dispose());

const path = '../shared/golden/degradation.safetensors';
const golden = existsSync(path) ? test : test.skip;

/** The parameters of the file's kernels and chains, as its configuration has them. */
interface Config {
  kernels: Record<string, { sigma_x: number; sigma_y: number; theta: number }>;
  chains: Record<string, { kernel: string; r: number; noise_sigma_255: number }>;
}

const toHwc = (x: Tensor): Tensor => transpose(reshape(x, x.shape.slice(1)), [1, 2, 0]);
const toNchw = (x: Tensor): Tensor => transpose(x, [0, 3, 1, 2]);
const kernelsOf = (spec: Blur, side: number): Float32Array => abreast(gaussianKernel(spec, side), side);
const kernelInput = (side: number): Tensor => input('kernels', [ABREAST, 1, side, side + ABREAST - 1]);

golden('kernels and blurs are those of the official code', async () => {
  const file = await Golden.open(path);
  for (const [name, { sigma_x: sigmaX, sigma_y: sigmaY, theta }] of Object.entries(
    file.json<Config>('config').kernels,
  )) {
    const spec = { sigmaX, sigmaY, theta };
    close(gaussianKernel(spec), await file.read(`out.kernel.${name}`), 1e-6, `kernel ${name}`);
    // The smaller kernel that is used where it suffices gives the same picture.
    for (const side of new Set([KERNEL_SIDE, sideFor(spec)])) {
      const y = toNchw(blur(toHwc(input('x', file.shape('in.x'))), kernelInput(side)));
      const feeds = { x: await file.read('in.x'), kernels: kernelsOf(spec, side) };
      const got = await evaluate(device, { y }, feeds);
      close(got.y, await file.read(`out.blur.${name}`), 1e-6, `blur ${name} with side ${side}`);
    }
  }
});

golden('whole chains are those of the official code, but for JPEG', async () => {
  const file = await Golden.open(path);
  const { kernels, chains } = file.json<Config>('config');
  for (const [name, { kernel, r, noise_sigma_255: deviation }] of Object.entries(chains)) {
    const { sigma_x: sigmaX, sigma_y: sigmaY, theta } = kernels[kernel];
    const x = input('x', file.shape(`in.${name}.x`));
    const [h, w] = x.shape.slice(2) as [number, number];
    const noise = transpose(input('noise', file.shape(`in.${name}.noise`)), [0, 2, 3, 1]);
    const size = noise.shape.slice(1, 3) as [number, number];
    assert.equal(size, [Math.floor(h / r), Math.floor(w / r)]);
    const noisy = reduceNoisy(blur(toHwc(x), kernelInput(KERNEL_SIDE)), size, noise, input('deviation', [1]));
    const outputs = { noisy: toNchw(noisy), lq: toNchw(resize(noisy, [h, w], { mode: 'bilinear' })) };
    const got = await evaluate(device, outputs, {
      x: await file.read(`in.${name}.x`),
      noise: await file.read(`in.${name}.noise`),
      kernels: kernelsOf({ sigmaX, sigmaY, theta }, KERNEL_SIDE),
      deviation: Float32Array.of(deviation / 255),
    });
    close(got.noisy, await file.read(`out.${name}.noisy_clipped`), 5e-6, `${name} reduced`);
    close(got.lq, await file.read(`out.${name}.lq`), 5e-6, `${name} enlarged`);
  }
});

/** Stripes and ramps of 61 x 47 pixels. */
const picture: Rgb = {
  width: 61,
  height: 47,
  data: Uint8Array.from({ length: 61 * 47 * 3 }, (_, i) => (i % 7 < 3 ? (i * 5) % 256 : 90)),
};

test('the draw and the image determine the result; drawn values lie in their ranges', async () => {
  using degrader = new Degrader(device);
  const seen = { isotropic: 0 };
  for (let i = 0; i < 200; i++) {
    const d = drawDegradation(new Draws(3, i));
    if (d.sigmaX === d.sigmaY) seen.isotropic++;
    for (const [value, [low, high]] of [
      [d.sigmaX, defaultRanges.sigma],
      [d.sigmaY, defaultRanges.sigma],
      [d.down, defaultRanges.down],
      [d.noise, defaultRanges.noise],
      [d.jpeg, defaultRanges.jpeg],
    ] as const) {
      assert.ok(value >= low && value <= high, `${JSON.stringify(d)}`);
    }
    assert.equal(d, drawDegradation(new Draws(3, i)));
  }
  assert.ok(seen.isotropic > 70 && seen.isotropic < 130);

  const draw = drawDegradation(new Draws(3, 5));
  const first = await degrader.degrade(picture, draw);
  sameBits((await degrader.degrade(picture, draw)).image, first.image, 'same draw');
  assert.is(first.small.width, Math.floor(61 / draw.down));
  assert.is(first.small.height, Math.floor(47 / draw.down));
  const other = await degrader.degrade(picture, { ...draw, state: [draw.state[0] + 1, draw.state[1], 0, 0] });
  assert.ok(
    other.image.some((v, i) => v !== first.image[i]),
    'another state is other noise',
  );
});

test('with nothing to do it hardly changes the image, and more of everything makes it worse', async () => {
  using degrader = new Degrader(device);
  const none = { sigmaX: 0.1, sigmaY: 0.1, theta: 0, down: 1, noise: 0, jpeg: 100, state: [1, 2, 0, 0] as const };
  const error = async (change: object): Promise<number> => {
    const { image } = await degrader.degrade(picture, { ...none, ...change });
    return Math.sqrt(image.reduce((sum, v, i) => sum + (255 * v - picture.data[i]) ** 2, 0) / image.length);
  };
  const clean = await error({});
  // What remains is JPEG's colour at half resolution.
  assert.ok(clean < 60, `${clean}`);
  for (const change of [{ sigmaX: 3, sigmaY: 3 }, { down: 4 }, { noise: 40 }, { jpeg: 10 }]) {
    assert.ok((await error(change)) > clean, JSON.stringify(change));
  }
});

test.run();
