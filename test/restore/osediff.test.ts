// OSEDiff's pipeline against the same arithmetic as one graph, with adapters beside the weights and folded into them.
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { NoiseSource } from '../../lib/diffusion/sampling.ts';
import { add, affine, cast, clamp, mul, sub } from '../../lib/graph/ops/elementwise.ts';
import { pad, slice } from '../../lib/graph/ops/layout.ts';
import { constant } from '../../lib/graph/tensor.ts';
import type { Rgb } from '../../lib/image/picture.ts';
import type { Adapters } from '../../lib/models/adapters.ts';
import { OSEDiff } from '../../lib/models/osediff.ts';
import { adainColorFix } from '../../lib/restore/color_fix.ts';
import { loadAdapted } from '../../lib/restore/latent_files.ts';
import { OSEDiffModel } from '../../lib/restore/osediff.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { tinyDiffBIR, writeAdapters, writeDiffBIR } from './latent_support.ts';
import { distance, failure, picture, temporaryFolder } from './support.ts';

const test = suite<{ device: Device }>('osediff', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu', { threads: 1 });
});
test.after(({ device }) => device.dispose());

const folder = temporaryFolder();
const paths = await writeDiffBIR((name) => join(folder, name));
const added = await writeAdapters((name) => join(folder, name));

const files = async () => ({
  unet: await openWeights(paths.unet),
  vae: await openWeights(paths.vae),
  text: await openWeights(paths.text),
});
const adapters = async (): Promise<Adapters> => ({
  unet: await openWeights(added.unet),
  vae: await openWeights(added.vae),
  ranks: { unet: 2, vae: 2 },
});

const load = async (device: Device, fold: boolean, mendsColours = false, size = 16, memory?: number) =>
  OSEDiffModel.load(
    { name: 'tiny', size, stages: new Stages(device, memory) },
    { config: tinyDiffBIR, fold, mendsColours },
    await files(),
    await adapters(),
  );

const rgb = async (width: number, height: number): Promise<Rgb> => ({
  width,
  height,
  data: new Uint8Array(await picture(width, height).raw().toBuffer()),
});

/** The published formulas: x0 = (z - 0.99766723 e) / 0.06826491 at timestep 999, `fidelity` of the way back to z. */
async function oneGraph(
  device: Device,
  { width, height, data }: Rgb,
  mends: boolean,
  fidelity = 0,
): Promise<Uint8Array> {
  const stages = new Stages(device);
  const model = new OSEDiff(tinyDiffBIR, { unet: 2, vae: 2 });
  await loadAdapted(stages, model, await files(), await adapters());
  const up = (size: number): number => Math.ceil(size / 4) * 4 - size;
  const image = affine(cast(constant(data, [1, height, width, 3], 'u8'), 'f32'), 1 / 255);
  const { mean, std } = model.encode(pad(image, [0, 0, 0, 0], [0, up(height), up(width), 0], 'replicate'));
  using source = await NoiseSource.create(device, mean.shape);
  const z = add(mean, mul(std, constant(await source.draw(5n, 0), mean.shape, 'f32')));
  const noise = model.predict(z, model.text(constant(Int32Array.of(513, 514, 0, 0, 0), [1, 5], 'i32')));
  const x0 = affine(sub(z, affine(noise, 0.99766723)), 1 / 0.06826491);
  const restored = slice(model.decode(add(affine(x0, 1 - fidelity), affine(z, fidelity))), [0, 0, 0, 0], image.shape);
  const y = mends ? adainColorFix(restored, image) : restored;
  const { bytes } = await evaluate(device, { bytes: cast(affine(clamp(y, 0, 1), 255), 'u8') }, {}, stages.parameters);
  stages.dispose();
  return bytes as Uint8Array;
}

for (const fold of [false, true]) {
  test(`one step with adapters ${fold ? 'folded into' : 'beside'} the weights`, async ({ device }) => {
    for (const [width, height, fidelity, mends] of [
      [16, 16, 0, false],
      [13, 10, 0.5, true],
      [16, 8, 1, false],
    ] as const) {
      const model = await load(device, fold, mends);
      const image = await rgb(width, height);
      const [restored] = await model.restore([image], { batch: 1, seed: 5, fidelity });
      const expected = await oneGraph(device, image, mends, fidelity);
      const worst = distance(restored.data, expected);
      assert.ok(worst <= (fold ? 2 : 1), `${width}x${height}, fidelity ${fidelity}: ${worst}`);
      assert.ok(distance(restored.data, image.data) > 20, 'it changes pictures');
      model.dispose();
    }
  });
}

test('without memory for all of it an image is restored in tiles, to the same pixels', async ({ device }) => {
  const image = await rgb(96, 96);
  for (const mends of [false, true]) {
    const [whole, tiled] = [await load(device, false, mends, 64), await load(device, false, mends, 64, 0)];
    const [expected] = await whole.restore([image], { batch: 1, seed: 5 });
    const [restored] = await tiled.restore([image], { batch: 1, seed: 5 });
    assert.ok(distance(restored.data, expected.data) <= 1, `${distance(restored.data, expected.data)}`);
    whole.dispose();
    tiled.dispose();
  }
});

test('settings that one step has no use for are refused', async ({ device }) => {
  const model = await load(device, false);
  for (const [name, value] of Object.entries({ steps: 3, sampler: 'ddim', guidance: 2, strength: 1, start: 'noise' })) {
    const error = await failure(model.restore([await rgb(16, 16)], { batch: 1, seed: 0, [name]: value }));
    assert.is(error.code, 'ERR_OPTION');
    assert.is(error.message, `tiny has no use for ${name}: it takes prompt, fidelity`);
  }
  model.dispose();
});

test.run();
