import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { affine, cast } from '../../lib/graph/ops/elementwise.ts';
import { input } from '../../lib/graph/tensor.ts';
import { psnr, ssim } from '../../lib/metrics/fidelity.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';

async function measure(
  device: Device,
  a: Uint8Array,
  b: Uint8Array,
  side: number,
): Promise<{ psnr: number; ssim: number }> {
  const image = (name: string) => affine(cast(input(name, [1, side, side, 3], 'u8'), 'f64'), 1 / 255);
  const [x, y] = [image('a'), image('b')];
  const values = await evaluate(device, { psnr: psnr(x, y), ssim: ssim(x, y) }, { a, b });
  return { psnr: values.psnr[0], ssim: values.ssim[0] };
}

test('a constant difference of 51 of 255 is 13.98 dB; equal pictures have a similarity of 1', async () => {
  using device = await openDevice('cpu');
  const a = new Uint8Array(16 * 16 * 3).map((_, i) => (i * 37) % 200);
  const b = a.map((v) => v + 51);
  assert.ok(Math.abs((await measure(device, a, b, 16)).psnr - 20 * Math.log10(5)) < 1e-9);
  assert.ok(Math.abs((await measure(device, a, a, 16)).ssim - 1) < 1e-12);
});

const path = fileURLToPath(new URL('../../../shared/golden/metrics.safetensors', import.meta.url));
const golden = existsSync(path) ? test : test.skip;

golden('PSNR and SSIM of three photographs agree with the reference', async () => {
  using device = await openDevice('cpu');
  const file = await openSafetensors(path);
  const read = (key: string) => readTensor(file, key);
  for (const name of ['astronaut', 'chelsea', 'coffee']) {
    const [a, b] = [await read(`in.${name}.ref_u8`), await read(`in.${name}.dist_u8`)];
    const { psnr, ssim } = await measure(device, a as Uint8Array, b as Uint8Array, 288);
    assert.ok(Math.abs(psnr - (await read(`out.${name}.psnr`))[0]) < 1e-4, `${name}: ${psnr} dB`);
    assert.ok(Math.abs(ssim - (await read(`out.${name}.ssim`))[0]) < 1e-5, `${name}: ${ssim}`);
  }
});

test.run();
