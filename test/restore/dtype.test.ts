// Models whose weights are kept in 16 bits: their pictures are near those of float32, and not the same.
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Restorer, type RestorerOptions } from '../../lib/index.ts';
import { refl } from '../cli/support.ts';
import { tinyDiffBIR } from './latent_support.ts';
import { diffbirFiles, osediffFiles, writeOfficial } from './official.ts';
import { distance, failure, picture, temporaryFolder } from './support.ts';

const folder = temporaryFolder();
// Random autoencoders give large latents: these are as small as the noise that a single step predicts.
const networks = join(folder, 'networks.json');
writeFileSync(networks, JSON.stringify({ ...tinyDiffBIR, scale: 0.03, size: 32 }));
const models = { 'diffbir-v1': diffbirFiles, 'osediff-face': osediffFiles };
for (const [name, files] of Object.entries(models)) {
  mkdirSync(join(folder, name));
  await writeOfficial(join(folder, name), files());
}
const source = await picture(32, 32).png().toBuffer();

const open = (model: string, more: RestorerOptions = {}): Promise<Restorer> =>
  Restorer.load({ model, weights: join(folder, model), networks, device: 'cpu', ...more });

async function pixelsOf(model: string, more?: RestorerOptions): Promise<Buffer> {
  using restorer = await open(model, more);
  const { image } = await restorer.restore(source, { aligned: true, ...(model === 'diffbir-v1' && { steps: 2 }) });
  return sharp(image).raw().toBuffer();
}

for (const model of Object.keys(models)) {
  test(`${model}: the nearer to float32, the more bits`, async () => {
    const exact = await pixelsOf(model, { dtype: 'f32' });
    assert.ok(exact.equals(await pixelsOf(model)), 'f32 is the default');
    const [coarse, fine] = [
      distance(exact, await pixelsOf(model, { dtype: 'bf16' })),
      distance(exact, await pixelsOf(model, { dtype: 'f16' })),
    ];
    // Levels of 255. Rounded to 8 bits each weight is off by up to a 512th, to 11 bits by a 4096th.
    assert.ok(coarse > 0 && coarse <= 8, `bf16: ${coarse}`);
    assert.ok(fine <= 1 && fine < coarse, `f16: ${fine}, bf16: ${coarse}`);
  });
}

test('adapters fold into weights of 16 bits', async () => {
  const beside = await pixelsOf('osediff-face', { dtype: 'f16' });
  const inside = await pixelsOf('osediff-face', { dtype: 'f16', fold: true });
  assert.ok(distance(beside, inside) <= 1, `${distance(beside, inside)}`);
});

test('the command line takes dtype, and refuses it where it means nothing', async () => {
  writeFileSync(join(folder, 'face.png'), source);
  const args = ['restore', join(folder, 'face.png'), '-o', join(folder, 'out'), '--aligned', '--device', 'cpu'];
  const brought = ['--model', 'osediff-face', '--weights', join(folder, 'osediff-face'), '--networks', networks];
  const { code, stderr } = await refl([...args, ...brought, '--dtype', 'bf16']);
  assert.is(code, 0, stderr);
  const written = await sharp(join(folder, 'out', 'face.png'))
    .raw()
    .toBuffer();
  assert.ok(written.equals(await pixelsOf('osediff-face', { dtype: 'bf16' })));
  assert.is((await refl([...args, '--dtype', 'bf16'])).code, 2);
  const error = await failure(open('osediff-face', { dtype: 'f64' as 'f32' }));
  assert.is(error.code, 'ERR_OPTION');
  assert.match(error.message, /dtype must be one of f32, bf16, f16, got f64/);
});

test.run();
