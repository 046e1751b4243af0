import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { constant } from '../../lib/graph/tensor.ts';
import { degrees, identityPreprocess, loadIdentity } from '../../lib/metrics/identity.ts';
import { ResNetFace } from '../../lib/models/arcface.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { rejects, stored, withFiles } from './support.ts';

test('faces become grey levels of 128 x 128', async () => {
  using device = await openDevice('cpu');
  // Halved without antialiasing, each pixel is the mean of the four it covers: of two columns 100 and 201, 150.5.
  const pixels = Float32Array.from({ length: 256 * 256 * 3 }, (_, i) => (Math.floor(i / 3) % 2 ? 201 : 100) / 255);
  const picture = constant(pixels, [1, 256, 256, 3], 'f32');
  const { faces } = await evaluate(device, { faces: identityPreprocess(picture) });
  assert.is(faces.length, 128 * 128);
  assert.ok(faces.every((v) => Math.abs(v - (151 - 127.5) / 127.5) < 1e-6));
  const red = Float32Array.from({ length: 128 * 128 * 3 }, (_, i) => (i % 3 ? 0 : 1));
  const out = await evaluate(device, { faces: identityPreprocess(constant(red, [1, 128, 128, 3], 'f32')) });
  assert.ok(Math.abs(out.faces[0] - (76 - 127.5) / 127.5) < 1e-6); // 0.299 of 255 is 76.2
});

test('angles stay defined where rounding carries a cosine past 1', () => {
  assert.is(degrees(1 + 1e-7), 0);
  assert.is(degrees(-1 - 1e-7), 180);
  assert.ok(Math.abs(degrees(0.5) - 60) < 1e-12);
  assert.ok(Number.isNaN(degrees(Number.NaN)));
});

test("arcface-pytorch's keys load with and without their module., and a missing one is named", async () => {
  using device = await openDevice('null');
  await withFiles(async (write) => {
    for (const prefix of ['', 'module.']) {
      const tensors = stored(new ResNetFace(), (key) => prefix + key);
      tensors.set(`${prefix}bn1.num_batches_tracked`, { shape: [1], dtype: 'I32' });
      using parameters = device.parameters();
      await loadIdentity(parameters, new ResNetFace(), await write(tensors));
    }
    const lacking = await write(stored(new ResNetFace(), (key) => (key === 'fc5.bias' ? undefined : `module.${key}`)));
    using parameters = device.parameters();
    await rejects(loadIdentity(parameters, new ResNetFace(), lacking), 'ERR_WEIGHTS', /missing: fc5\.bias \[512\]/);
  });
});

test.run();
