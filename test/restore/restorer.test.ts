import { writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import sharp, { type Sharp } from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type ReflError, Restorer } from '../../lib/index.ts';
import { distance, failure, picture, temporaryFolder, tinyConfig, writeTinyModel } from './support.ts';

const test = suite('restorer');
const folder = temporaryFolder();
const model = join(folder, 'tiny.safetensors');
await writeTinyModel(model);
/** As {@link model}, but with a last layer and a timestep that do something. */
const busy = join(folder, 'busy.safetensors');
await writeTinyModel(busy, {
  config: { ...tinyConfig, timestep: 200 },
  change: (key, values) => key.startsWith('unet.out.2') && values.set(values.map((_, i) => Math.sin(i) / 4)),
});

let restorer: Restorer;
test.before(async () => {
  restorer = await Restorer.load({ model, device: 'cpu', threads: 1 });
});
test.after(() => restorer.dispose());

const pixels = (png: Uint8Array): Promise<Buffer> => sharp(png).raw().toBuffer();

test('the identity model gives an aligned crop back, to a grey level', async () => {
  const source = picture(32, 32);
  const { image, figures } = await restorer.restore(source, { aligned: true });
  const { seconds, ...rest } = figures;
  assert.ok(seconds > 0);
  assert.equal(rest, { width: 32, height: 32, faces: 1, notes: [] });
  assert.ok(distance(await pixels(image), await source.raw().toBuffer()) <= 1);
});

test('every aligned crop comes back at its own size, from one pixel to 20,000', async () => {
  for (const [width, height] of [
    [1, 1],
    [2, 3],
    [31, 33],
    [100, 40],
    [20_000, 3],
    [64, 64],
  ]) {
    const source = picture(width, height);
    const { image, figures } = await restorer.restore(await source.png().toBuffer(), { aligned: true });
    const { info } = await sharp(image).raw().toBuffer({ resolveWithObject: true });
    assert.equal([info.width, info.height, info.channels], [width, height, 3]);
    assert.equal([figures.width, figures.height], [width, height]);
    if (width === 64) assert.ok(distance(await pixels(image), await source.raw().toBuffer()) < 16);
  }
});

test('alpha is put back untouched; a rotated picture comes back upright', async () => {
  const source = picture(40, 20, 4);
  const { image } = await restorer.restore(await source.png().toBuffer(), { aligned: true });
  const alpha = (png: Sharp): Promise<Buffer> => png.extractChannel(3).raw().toBuffer();
  assert.ok((await alpha(sharp(image))).equals(await alpha(sharp(await source.png().toBuffer()))));

  const lying = await picture(40, 20).withMetadata({ orientation: 6 }).png().toBuffer();
  const { figures } = await restorer.restore(lying, { aligned: true });
  assert.equal([figures.width, figures.height], [20, 40]);
});

test('a batch keeps order and gives each picture its own result or error', async () => {
  using many = await Restorer.load({ model: busy, device: 'cpu', threads: 1, batch: 2 });
  const crops = await Promise.all(
    [1, 2, 3].map((k) =>
      picture(32, 32)
        .modulate({ brightness: k / 3 })
        .png()
        .toBuffer(),
    ),
  );
  const alone = await Promise.all(
    crops.map(async (crop) => pixels((await many.restore(crop, { aligned: true })).image)),
  );
  assert.ok(distance(alone[0], await pixels(crops[0])) > 5, 'this model changes pictures');
  const results = await many.restoreMany([crops[0], Buffer.from('no image'), crops[1], crops[2]], { aligned: true });
  assert.equal(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled', 'fulfilled'],
  );
  assert.is(((results[1] as PromiseRejectedResult).reason as ReflError).code, 'ERR_IMAGE');
  const together = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.image] : []));
  for (const [i, image] of together.entries()) assert.ok(distance(await pixels(image), alone[i]) <= 1);
});

test('the same call gives the same bytes', async () => {
  using again = await Restorer.load({ model: busy, device: 'cpu', threads: 2 });
  const crop = await picture(50, 40).png().toBuffer();
  const [a, b] = [await again.restore(crop, { aligned: true }), await again.restore(crop, { aligned: true })];
  assert.ok(a.image.equals(b.image));
  const { image } = await again.restore(crop, { aligned: true, seed: 7 });
  assert.ok(a.image.equals(image), 'a model of one step draws no noise');
});

test('progress ends at 1, and an abort rejects with its reason', async () => {
  const seen: number[] = [];
  await restorer.restore(picture(32, 32), { aligned: true, onProgress: (fraction) => seen.push(fraction) });
  assert.is(seen.at(-1), 1);
  assert.equal(
    seen,
    [...seen].sort((a, b) => a - b),
  );

  const stop = new AbortController();
  const running = restorer.restore(picture(32, 32), { aligned: true, signal: stop.signal });
  stop.abort(new Error('enough'));
  assert.is((await failure(running)).message, 'enough');
  const { figures } = await restorer.restore(picture(32, 32), { aligned: true });
  assert.is(figures.faces, 1, 'it works on after an abort');
});

test('a photograph without a face comes back as it was, and that is said', async () => {
  const source = picture(120, 90);
  const { image, figures } = await restorer.restore(source);
  assert.is(figures.faces, 0);
  assert.match(figures.notes[0], /no face/);
  assert.ok((await pixels(image)).equals(await source.raw().toBuffer()));
});

test('faces in a photograph are restored where they are, and nothing else is touched', async () => {
  const group = createRequire(import.meta.url).resolve('@vladmandic/face-api/demo/sample5.jpg');
  const photograph = sharp(group).resize(800);
  const { data, info } = await photograph.clone().raw().toBuffer({ resolveWithObject: true });
  const { image, figures } = await restorer.restore(photograph);
  assert.is(figures.faces, 5);
  assert.match(figures.notes[0], /5 of 5 faces are larger than the model's 32 pixels/);
  const restored = await pixels(image);
  const changed = (left: number, top: number, width: number, height: number): number => {
    let count = 0;
    for (let y = top; y < top + height; y++) {
      for (let i = (y * info.width + left) * 3; i < (y * info.width + left + width) * 3; i++)
        count += Number(restored[i] !== data[i]);
    }
    return count / (3 * width * height);
  };
  assert.is(changed(700, 0, 100, 80), 0, 'the empty wall');
  assert.ok(changed(600, 170, 60, 60) > 0.5, 'the face on the right went through a model of 32 pixels');
});

test('tiles restore all of a picture at its own resolution, without a seam', async () => {
  for (const aligned of [true, false]) {
    const source = picture(100, 75);
    const { image, figures } = await restorer.restore(source, { aligned, tile: true });
    assert.equal([figures.faces, figures.notes], [aligned ? 1 : 0, []]);
    assert.ok(distance(await pixels(image), await source.raw().toBuffer()) <= 3, 'the model is the identity');
  }
});

test('names and numbers that make no sense are refused', async () => {
  assert.is((await failure(Restorer.load({ model: 'face-9000' }))).code, 'ERR_OPTION');
  assert.is((await failure(Restorer.load({ model: 'constructor' }))).code, 'ERR_OPTION');
  assert.is((await failure(Restorer.load({ model, device: 'tpu' }))).code, 'ERR_DEVICE');
  assert.is((await failure(Restorer.load({ model, device: 'null' }))).code, 'ERR_DEVICE');
  assert.is((await failure(Restorer.load({ model, threads: 0 }))).code, 'ERR_OPTION');
  assert.is((await failure(Restorer.load({ model, batch: 1.5 }))).code, 'ERR_OPTION');
  assert.is((await failure(restorer.restore(picture(8, 8), { aligned: true, seed: 0.5 }))).code, 'ERR_OPTION');
  assert.is((await failure(Restorer.load({ model: join(folder, 'none.safetensors') }))).code, 'ERR_FILE');
});

test('a model file that does not fit is one error that names it', async () => {
  const path = join(folder, 'bad.safetensors');
  const refused = async (why: RegExp): Promise<void> => {
    const { code, message } = await failure(Restorer.load({ model: path, device: 'cpu', threads: 1 }));
    assert.is(code, 'ERR_WEIGHTS', message);
    assert.ok(message.startsWith(path), message);
    assert.match(message, why);
  };
  await writeTinyModel(path, { format: 'someone/else' });
  await refused(/no restorer.*someone\/else/);
  await writeTinyModel(path, { without: ['context'] });
  await refused(/missing: context/);
  const { unet } = tinyConfig;
  await writeTinyModel(path, { config: { ...tinyConfig, unet: { ...unet, model_channels: 32 } } });
  await refused(/wrong shape/);
  const hostile: unknown[] = [
    null,
    {},
    'text',
    { ...tinyConfig, size: 1e9 },
    { ...tinyConfig, size: 33 },
    { ...tinyConfig, factor: 0 },
    { ...tinyConfig, timestep: 5000 },
    { ...tinyConfig, unet: { ...unet, num_res_blocks: 1e9 } },
    { ...tinyConfig, unet: { ...unet, transformer_depth: 1e9 } },
    { ...tinyConfig, unet: { ...unet, channel_mult: [] } },
    { ...tinyConfig, unet: { ...unet, channel_mult: 'ab' } },
    { ...tinyConfig, unet: { ...unet, num_groups: 0 } },
    { ...tinyConfig, unet: { ...unet, attention_resolutions: 7 } },
  ];
  for (const config of hostile) {
    await writeTinyModel(path, { config });
    await refused(/./);
  }
  await writeTinyModel(path, { change: (key, values) => key === 'context' && values.fill(Number.NaN, 3, 4) });
  await refused(/NaN or infinity: context$/);
  await writeFile(path, 'short');
  await refused(/no safetensors file/);
});

test('weights that are finite but overflow give an error, not a black picture', async () => {
  const path = join(folder, 'overflow.safetensors');
  await writeTinyModel(path, { change: (_, values) => values.fill(1e30) });
  using wild = await Restorer.load({ model: path, device: 'cpu', threads: 1 });
  const error = await failure(wild.restore(picture(32, 32), { aligned: true }));
  assert.is(error.code, 'ERR_WEIGHTS');
  assert.match(error.message, /not finite/);
});

test('a disposed restorer says so', async () => {
  const gone = await Restorer.load({ model, device: 'cpu', threads: 1 });
  gone.dispose();
  gone.dispose();
  assert.is((await failure(gone.restore(picture(32, 32), { aligned: true }))).code, 'ERR_DISPOSED');
});

test.run();
