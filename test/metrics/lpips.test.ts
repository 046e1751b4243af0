import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { grad } from '../../lib/graph/grad.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { input } from '../../lib/graph/tensor.ts';
import { loadLpips } from '../../lib/metrics/lpips.ts';
import { LPIPS, type LPIPSConfig } from '../../lib/models/lpips.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import type { WeightsFile } from '../../lib/weights/format.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { sameBits } from '../support/assert.ts';
import { random } from '../support/random.ts';
import { errorOf } from '../support/runtime.ts';

interface Context {
  folder: string;
  device: Device;
}
const test = suite<Context>('LPIPS', {} as Context);
test.before(async (context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'refl-lpips-'));
  context.device = await openDevice('cpu');
});
test.after(({ folder, device }) => {
  rmSync(folder, { recursive: true });
  device.dispose();
});

const config: LPIPSConfig = { vgg_channels: [3, 'M', 4, 5, 'M'] };
const { next } = random(5);
const draw = (length: number): Float32Array => Float32Array.from({ length }, () => 2 * next() - 1);
const source = (...shape: number[]): Source => {
  const values = draw(shape.reduce((a, b) => a * b));
  return { dtype: 'F32', shape, data: () => values };
};

const trunk: Record<string, Source> = {
  'features.0.weight': source(3, 3, 3, 3),
  'features.0.bias': source(3),
  'features.3.weight': source(4, 3, 3, 3),
  'features.3.bias': source(4),
  'features.5.weight': source(5, 4, 3, 3),
  'features.5.bias': source(5),
  'classifier.0.weight': source(2, 2),
};
const linear: Record<string, Source> = {
  'lin0.model.1.weight': source(1, 3, 1, 1),
  'lin1.model.1.weight': source(1, 5, 1, 1),
};
/** The same numbers as one state dict of the official module. */
const whole: Record<string, Source> = {
  'scaling_layer.shift': source(1, 3, 1, 1),
  'net.slice1.0.weight': trunk['features.0.weight'],
  'net.slice1.0.bias': trunk['features.0.bias'],
  'net.slice2.3.weight': trunk['features.3.weight'],
  'net.slice2.3.bias': trunk['features.3.bias'],
  'net.slice2.5.weight': trunk['features.5.weight'],
  'net.slice2.5.bias': trunk['features.5.bias'],
  ...linear,
  'lins.0.model.1.weight': linear['lin0.model.1.weight'],
  'lins.1.model.1.weight': linear['lin1.model.1.weight'],
};

async function fileOf(folder: string, name: string, tensors: Record<string, Source>): Promise<WeightsFile> {
  const path = join(folder, `${name}.safetensors`);
  await writeSafetensors(path, new Map(Object.entries(tensors)));
  return openSafetensors(path);
}

const [a, b] = [input('a', [2, 6, 4, 3]), input('b', [2, 6, 4, 3])];

test("torchvision's and LPIPS's files, in any order, are the whole module's one", async ({ folder, device }) => {
  const [one, two] = [await fileOf(folder, 'vgg16', trunk), await fileOf(folder, 'vgg', linear)];
  const feeds = { a: draw(144), b: draw(144) };
  const distances = async (files: WeightsFile[]): Promise<Float32Array> => {
    const module = new LPIPS(config);
    using parameters = device.parameters();
    await loadLpips(parameters, module, files);
    return (await evaluate(device, { d: module.forward(a, b).distance }, feeds, parameters)).d as Float32Array;
  };
  const expected = await distances([await fileOf(folder, 'lpips', whole)]);
  assert.ok(expected.every((d) => Math.abs(d) > 1e-3));
  sameBits(await distances([one, two]), expected, 'trunk first');
  sameBits(await distances([two, one]), expected, 'trunk last');
});

test('at full size it has the parameters of VGG16 without its classifier, and five linear layers', () => {
  const { parameterCount } = new LPIPS();
  assert.is(parameterCount, 14_714_688 + 1_472);
});

test('a missing file is named by what it holds', async ({ folder, device }) => {
  using parameters = device.parameters();
  const load = (...files: WeightsFile[]) => errorOf(() => loadLpips(parameters, new LPIPS(config), files));
  const [one, two] = [await fileOf(folder, 'vgg16', trunk), await fileOf(folder, 'vgg', linear)];
  assert.match((await load(one)).message, /vgg16\.safetensors: missing 2 of LPIPS, such as lin0.*LPIPS's weights/);
  assert.match((await load(two)).message, /missing 6 .*net\.slice1\.0\.weight; VGG16's layers are in torchvision's/);
  assert.match((await load()).message, /no file: missing 8/);
  const other = await fileOf(folder, 'other', { ...whole, 'lin7.weight': source(1) });
  assert.match((await load(other)).message, /unexpected: lin7\.weight/);
});

test('images without features are no distance apart and have no gradient', async ({ folder, device }) => {
  const module = new LPIPS(config);
  using parameters = device.parameters();
  const dark = Object.fromEntries(
    Object.entries(whole).map(([key, value]) => [
      key,
      key.endsWith('bias') ? { ...value, data: () => new Float32Array(value.shape[0]).fill(-100) } : value,
    ]),
  );
  await loadLpips(parameters, module, [await fileOf(folder, 'dark', dark)]);
  const { distance } = module.forward(a, b);
  const outputs = { distance, gradient: grad(sum(distance), [a])[0] };
  const values = await evaluate(device, outputs, { a: draw(144), b: draw(144) }, parameters);
  assert.equal(values.distance, new Float32Array(2));
  assert.equal(values.gradient.map(Math.abs), new Float32Array(144));
});

test.run();
