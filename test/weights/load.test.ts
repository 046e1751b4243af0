import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { TypedArray } from '../../lib/graph/dtype.ts';
import { initialize } from '../../lib/nn/init.ts';
import { Conv2d, Embedding, GroupNorm, Linear } from '../../lib/nn/layers.ts';
import { Buffer, Module, Parameter, withDType } from '../../lib/nn/module.ts';
import { type Device, openDevice, type Parameters } from '../../lib/runtime/index.ts';
import { loadWeights } from '../../lib/weights/load.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { archive, dict, tensor, text } from './pickles.ts';
import type { Member } from './zip.ts';

interface Context {
  folder: string;
  device: Device;
}
const test = suite<Context>('loadWeights', {} as Context);
test.before(async (context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'refl-load-'));
  context.device = await openDevice('cpu');
});
test.after(({ folder, device }) => {
  rmSync(folder, { recursive: true });
  device.dispose();
});

class Small extends Module {
  readonly a = new Linear(2, 3);
  readonly b = [new Linear(1, 2, { bias: false })];
  readonly mask = new Buffer([1], 'i32', () => Int32Array.of(0));
}

const source = (dtype: Source['dtype'], shape: number[], values: number[]): Source => ({
  dtype,
  shape,
  data: () =>
    dtype === 'F64' ? Float64Array.from(values) : dtype === 'I32' ? Int32Array.from(values) : Float32Array.from(values),
});

const good: Record<string, Source> = {
  'm.a.weight': source('F32', [3, 2], [1, 2, 3, 4, 5, 0.1]),
  'm.a.bias': source('F16', [3], [1.5, -2, 0.1]),
  'm.b.0.weight': source('BF16', [2, 1], [3, 0.1]),
  'm.mask': source('I32', [1], [7]),
  'other.weight': source('F64', [1], [1]),
};

async function fileOf(folder: string, tensors: Record<string, Source>): Promise<string> {
  const path = join(folder, 'weights.safetensors');
  await writeSafetensors(path, new Map(Object.entries(tensors)));
  return path;
}

async function message(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
  } catch (error) {
    assert.is((error as { code?: string }).code, 'ERR_WEIGHTS');
    return (error as Error).message;
  }
  throw new Error('nothing was thrown');
}

async function read(parameters: Parameters, module: Module): Promise<Record<string, TypedArray>> {
  const values: Record<string, TypedArray> = {};
  for (const [key, { value }] of module.namedParameters()) values[key] = await parameters.read(value);
  return values;
}

test('values arrive in the parameters, from every stored type', async ({ folder, device }) => {
  const file = await openSafetensors(await fileOf(folder, good));
  const module = new Small();
  using parameters = device.parameters();
  await loadWeights(parameters, module, file, { prefix: 'm.' });
  assert.equal(await read(parameters, module), {
    'a.weight': Float32Array.of(1, 2, 3, 4, 5, 0.1),
    'a.bias': Float32Array.of(1.5, -2, 0.0999755859375),
    'b.0.weight': Float32Array.of(3, 0.10009765625),
  });

  const wide = withDType('f64', () => new Small());
  using doubles = device.parameters();
  await loadWeights(doubles, wide, file, { prefix: 'm.' });
  assert.equal((await read(doubles, wide))['a.bias'], Float64Array.of(1.5, -2, 0.0999755859375));
});

test('all faults stand in one error, and nothing is loaded', async ({ folder, device }) => {
  const { 'm.a.weight': _, ...rest } = good;
  const bad = {
    ...rest,
    'm.a.bias': source('F32', [1], [1]),
    'm.b.0.weight': source('I32', [2, 1], [1, 2]),
    'm.c': good['m.mask'],
  };
  const file = await openSafetensors(await fileOf(folder, bad));
  const module = new Small();
  using parameters = device.parameters();
  const text = await message(loadWeights(parameters, module, file, { prefix: 'm.' }));
  assert.equal(
    text
      .split('\n')
      .slice(1)
      .map((line) => line.trim())
      .sort(),
    [
      'missing: m.a.weight [3,2]',
      'unexpected: m.c I32[1]',
      'wrong shape: m.a.bias is F32[1], needs [3]',
      'wrong type: m.b.0.weight is I32[2,1]',
    ],
  );
  assert.match(text, /weights\.safetensors does not fit the model: 1 of 3 tensors are missing, 3 are wrong:\n/);
  assert.is(parameters.bytes, 0);
  assert.match(await message(loadWeights(parameters, module, file)), /unexpected: other\.weight F64\[1\]/);
});

class Scalar extends Module {
  readonly scale = new Parameter([], 'zeros');
}

test('a single value is taken as [] or [1], and as nothing else', async ({ folder, device }) => {
  const module = new Scalar();
  for (const shape of [[], [1]]) {
    const file = await openSafetensors(await fileOf(folder, { scale: source('F32', shape, [4.5]) }));
    using parameters = device.parameters();
    await loadWeights(parameters, module, file);
    assert.equal(await read(parameters, module), { scale: Float32Array.of(4.5) });
  }
  using parameters = device.parameters();
  const file = await openSafetensors(await fileOf(folder, { scale: source('F32', [1, 1], [4.5]) }));
  assert.match(await message(loadWeights(parameters, module, file)), /wrong shape: scale is F32\[1,1\], needs \[\]/);
});

test('a file cut after its header was read fails with its name', async ({ folder, device }) => {
  const path = await fileOf(folder, good);
  const file = await openSafetensors(path);
  truncateSync(path, file.entries.get('m.a.weight')!.pieces[0].offset + 8);
  using parameters = device.parameters();
  assert.ok((await message(loadWeights(parameters, new Small(), file, { prefix: 'm.' }))).includes(path));
});

class Pair extends Module {
  readonly w = new Parameter([2], 'zeros');
}

test("values that lack their archive's checksum are not loaded", async ({ folder, device }) => {
  const path = join(folder, 'sum.pth');
  const load = async (crc?: number): Promise<Parameters> => {
    const edit = (member: Member): Member => (member.name.endsWith('/0') ? { ...member, crc } : member);
    writeFileSync(path, archive(dict(text('w'), tensor()), undefined, { edit }));
    const parameters = device.parameters();
    await loadWeights(parameters, new Pair(), await openWeights(path), { frozen: true });
    return parameters;
  };
  (await load()).dispose();
  assert.match(await message(load(1)), /sum\.pth: a\/data\/0 does not have the archive's checksum: fetch or copy/);
});

class Layers extends Module {
  readonly norm = new GroupNorm(2, 4, 1e-5);
  readonly conv = new Conv2d(16, 24, 3);
  readonly same = new Conv2d(16, 24, 3);
  readonly zero = new Linear(5, 6, { init: 'zeros' });
  readonly table = new Embedding(100, 32, 0.5);
}

test('initial values follow their description, the seed and the place', async ({ device }) => {
  const module = new Layers();
  module.conv.train(false);
  const draw = async (seed: bigint, of: Module = module): Promise<Record<string, TypedArray>> => {
    using parameters = device.parameters();
    await initialize(device, parameters, of, seed);
    return await read(parameters, of);
  };
  const values = await draw(7n);
  assert.equal(values, await draw(7n));
  assert.equal(values['norm.weight'], new Float32Array(4).fill(1));
  assert.equal(values['zero.weight'], new Float32Array(30));
  assert.equal(values['zero.bias'], new Float32Array(6));

  const conv = values['conv.weight'] as Float32Array;
  const bound = 1 / Math.sqrt(16 * 9);
  assert.ok(conv.every((v) => Math.abs(v) <= bound));
  assert.ok(Math.max(...conv) > 0.99 * bound && Math.min(...conv) < -0.99 * bound);
  const table = values['table.weight'] as Float32Array;
  const mean = table.reduce((sum, v) => sum + v, 0) / table.length;
  const deviation = Math.sqrt(table.reduce((sum, v) => sum + (v - mean) ** 2, 0) / table.length);
  assert.ok(Math.abs(mean) < 0.03 && Math.abs(deviation - 0.5) < 0.03, `mean ${mean}, deviation ${deviation}`);

  const other = await draw(7n + (1n << 32n));
  for (const key of ['conv.weight', 'conv.bias', 'table.weight']) assert.not.equal(values[key], other[key]);
  assert.not.equal(values['conv.weight'], values['same.weight']);

  const wide = await draw(
    7n,
    withDType('f64', () => new Layers()),
  );
  assert.equal(Float32Array.from(wide['zero.weight']), values['zero.weight']);
  const drift = Math.max(...conv.map((v, i) => Math.abs(v - wide['conv.weight'][i])));
  assert.ok(drift < 1e-7, `float64 draws differ by ${drift}`);
});

test.run();
