import { mkdtemp, rename, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import type { Sharp } from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { MetricSet } from '../../lib/eval/metric_set.ts';
import { defaultMetrics, publishedMetrics } from '../../lib/eval/metrics.ts';
import { decodeImage, type Rgb, sharpOf } from '../../lib/image/picture.ts';
import { ResNetFace } from '../../lib/models/arcface.ts';
import { InceptionV3 } from '../../lib/models/inception.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { rejects, stored, withFiles } from '../metrics/support.ts';

const demo = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json')), 'demo');

/** A photograph with a face, small, and perhaps changed. */
async function photograph(change: (image: Sharp) => Sharp = (image) => image): Promise<Rgb> {
  const small = sharpOf(await decodeImage(join(demo, 'sample1.jpg'))).resize(480);
  const whole = await decodeImage(await small.png().toBuffer());
  return decodeImage(await change(sharpOf(whole)).png().toBuffer());
}

test('names are told apart, and none of the default set is that of a published network', () => {
  const names = defaultMetrics.map(({ name }) => name);
  assert.is(new Set(names).size, names.length);
  const networks = publishedMetrics.filter(({ files }) => files.length).map(({ name }) => name);
  assert.is(networks.length, 8);
  assert.equal(
    names.filter((name) => networks.includes(name)),
    [],
  );
});

test('damage shows in every metric of the default set, in the direction it names', async () => {
  using set = await MetricSet.load({ paired: true });
  assert.is(set.name, 'default');
  assert.equal(set.missing, []);
  const reference = await photograph();
  const light = await set.measure(await photograph((image) => image.blur(0.6)), reference);
  const heavy = await set.measure(await photograph((image) => image.blur(4)), reference);
  assert.equal(
    Object.keys(light),
    defaultMetrics.map(({ name }) => name),
  );
  for (const { name, better } of defaultMetrics) {
    // Blur takes noise away.
    const worse = name === 'noise' ? light[name] > heavy[name] : light[name] > heavy[name] === (better === 'higher');
    assert.ok(worse, `${name}: ${light[name]} and ${heavy[name]}`);
  }
});

test('without references what compares is left out', async () => {
  using set = await MetricSet.load({ paired: false });
  const picture = await photograph();
  const values = await set.measure(picture);
  assert.equal(Object.keys(values), ['naturalness', 'sharpness', 'noise']);
  assert.equal(await set.measure(await sharpOf(picture).png().toBuffer()), values);
  assert.is(await set.fid(), undefined);
  set.dispose();
});

test('pictures that cannot be measured are refused, with the metric that failed', async () => {
  const whole = await photograph();
  const small: Rgb = { width: 100, height: 100, data: new Uint8Array(100 * 100 * 3) };
  using set = await MetricSet.load({ paired: true, only: ['psnr', 'landmark_shift'] });
  await rejects(set.measure(small, whole), 'ERR_IMAGE', /100x100, its reference 480x320 pixels/);
  await rejects(set.measure(whole, whole), 'ERR_IMAGE', /psnr came out as Infinity: the picture equals its reference/);
  await rejects(set.measure(whole), 'ERR_OPTION', /psnr needs a reference/);
  const grey = { ...small, data: small.data.map((_, i) => i % 200) };
  await rejects(set.measure(small, grey), 'ERR_IMAGE', /landmark_shift cannot be measured: no face was found/);
  using alone = await MetricSet.load({ paired: false, only: ['naturalness'] });
  await rejects(alone.measure(small), 'ERR_IMAGE', /naturalness cannot be measured: .*two blocks of 96x96/);
});

test('choices that make no sense are refused', async () => {
  const load = (options: Partial<Parameters<typeof MetricSet.load>[0]>) => MetricSet.load({ paired: true, ...options });
  await rejects(load({ only: ['lpips'] }), 'ERR_OPTION', /unknown metric lpips: without weights there are psnr/);
  await rejects(load({ paired: false, only: ['psnr'] }), 'ERR_OPTION', /psnr needs references/);
  await rejects(load({ device: 'null' }), 'ERR_DEVICE', /computes nothing/);
  await rejects(load({ weights: '/nowhere' }), 'ERR_FILE', /\/nowhere: cannot read/);
  const folder = await mkdtemp(join(tmpdir(), 'refl-weights-'));
  try {
    await rejects(load({ weights: folder, paired: false }), 'ERR_OPTION', /holds the files of no metric/);
    const statistics = /statistics are for the FID, which needs pt_inception/;
    await rejects(load({ fidStatistics: 'any.npz' }), 'ERR_OPTION', statistics);
    await rejects(load({ weights: folder, only: ['fid'] }), 'ERR_OPTION', /fid needs pt_inception-2015/);
    const named = /lpips needs vgg16-397923af and vgg \(\.safetensors or \.pth/;
    await rejects(load({ weights: folder, only: ['lpips'] }), 'ERR_OPTION', named);
  } finally {
    await rm(folder, { recursive: true });
  }
});

test('published metrics come from the files that are there; the others are said to be missing', async () => {
  await withFiles(async (write) => {
    const place = async (module: ResNetFace | InceptionV3, name: string): Promise<string> => {
      const { path } = await write(stored(module));
      await rename(path, join(dirname(path), name));
      return dirname(path);
    };
    const weights = await place(new ResNetFace(), 'resnet18_110.safetensors');
    await place(new InceptionV3(), 'pt_inception-2015-12-05-6726825d.safetensors');
    using set = await MetricSet.load({ weights, paired: true });
    assert.is(set.name, 'published');
    assert.equal(
      set.metrics.map(({ name }) => name),
      ['psnr', 'ssim', 'deg'],
    );
    assert.equal(set.missing[0], { name: 'lpips', files: ['vgg16-397923af', 'vgg'] });
    assert.is(set.missing.length, 7);
    const reference = await photograph();
    const { deg } = await set.measure(await photograph((image) => image.blur(2)), reference);
    // Weights of zero make embeddings of zero, which have no direction.
    assert.is(deg, 90);
    assert.is(await set.fid(), undefined);
    await set.measure(await photograph((image) => image.blur(3)), await photograph((image) => image.flop()));
    assert.is(await set.fid(), 0);

    using alone = await MetricSet.load({ weights, paired: true, only: ['fid'] });
    assert.equal(alone.metrics, []);
    assert.equal(await alone.measure(reference, reference), {});
    // Zero features are the mean's length away from others.
    const shape = [2048, 2048];
    const statistics = new Map<string, Source>([
      ['mu', { dtype: 'F64', shape: [2048], data: () => new Float64Array(2048).fill(0.5) }],
      [
        'sigma',
        { dtype: 'F64', shape, data: () => Float64Array.from({ length: 2048 ** 2 }, (_, i) => Number(i === 0)) },
      ],
    ]);
    const fidStatistics = join(weights, 'statistics.safetensors');
    await writeSafetensors(fidStatistics, statistics);
    using far = await MetricSet.load({ weights, paired: false, only: ['fid'], fidStatistics });
    for (let i = 0; i < 2; i++) await far.measure(reference);
    assert.is(await far.fid(), 2048 * 0.25 + 1);
  });
});

test.run();
