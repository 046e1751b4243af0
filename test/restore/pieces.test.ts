// An autoencoder in tiles against the same one as a whole: encoder and decoder, tiles that do not divide the image, planes in
// memory and in files.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { input } from '../../lib/graph/tensor.ts';
import { AutoencoderKL, decodingPieces, encodingPieces, type VaeConfig } from '../../lib/models/vae.ts';
import { runPieces } from '../../lib/restore/pieces.ts';
import { makePlane, planeOf } from '../../lib/restore/plane.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { close } from '../support/assert.ts';
import { random } from '../support/random.ts';
import { tensorsOf } from './latent_support.ts';

const test = suite<{ device: Device }>('pieces', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu', { threads: 1 });
});
test.after(({ device }) => device.dispose());

const config: VaeConfig = {
  embed_dim: 3,
  ddconfig: { in_channels: 3, out_ch: 3, ch: 8, ch_mult: [1, 2, 2], num_res_blocks: 1, z_channels: 2, num_groups: 4 },
};

/** Structure that is no noise: left and right, top and bottom differ, so that each tile's own statistics would be wrong. */
const numbers = (shape: readonly number[]): Float32Array => {
  const { next } = random(9);
  const [, , w, c] = shape;
  const size = shape.reduce((a, b) => a * b, 1);
  return Float32Array.from({ length: size }, (_, i) => next() + 3 * Math.sin(i / c / w / 5) + ((i / c) % w) / w);
};

for (const [what, shape, bytes] of [
  ['encode', [1, 48, 36, 3], 4 * 8 * 400],
  ['encode', [2, 24, 20, 3], 1],
  ['decode', [1, 10, 7, 3], 4 * 16 * 300],
  ['decode', [2, 5, 6, 3], 1],
] as const) {
  test(`${what} of [${shape}] in tiles is ${what} as a whole`, async ({ device }) => {
    const vae = new AutoencoderKL(config);
    const stages = new Stages(device);
    for (const [key, source] of tensorsOf(vae, 3)) {
      stages.parameters.add(vae.namedParameters().get(key)!.value, { data: source.data() as Float32Array });
    }
    const x = input('x', shape);
    const whole = await evaluate(
      device,
      { y: what === 'encode' ? vae.encode(x) : vae.decode(x) },
      { x: numbers(shape) },
      stages.parameters,
    );
    const pieces = what === 'encode' ? encodingPieces(vae) : decodingPieces(vae);
    const seen: number[] = [];
    const plane = await runPieces(stages, what, pieces, planeOf(numbers(shape), shape), {
      bytes,
      onProgress: (fraction) => seen.push(fraction),
    });
    const [, height, width] = plane.shape;
    const tiled = await plane.read({ top: 0, left: 0, height, width });
    close(tiled, whole.y, 1e-5, what);
    assert.is(seen.at(-1), 1);
    await plane.dispose();
    stages.dispose();
  });
}

test('a plane in a file holds what one in memory does', async () => {
  const shape = [2, 9, 7, 3] as const;
  const planes = [await makePlane(shape), await makePlane(shape, 0)];
  const region = { top: 2, left: 1, height: 4, width: 5 };
  const values = numbers([2, 4, 5, 3]);
  const all = { top: 0, left: 0, height: 9, width: 7 };
  for (const plane of planes) {
    await plane.write(region, values);
    close(await plane.read(region), values, 0, 'region');
  }
  close(await planes[1].read(all), await planes[0].read(all), 0, 'all');
  assert.ok((await planes[0].read(all)).filter((v) => v === 0).length >= 2 * (9 * 7 - 20) * 3);
  for (const plane of planes) {
    await plane.dispose();
    await plane.dispose();
  }
});

test.run();
