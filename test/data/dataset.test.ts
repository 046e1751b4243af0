import { mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { writeFaceDataset } from '../../lib/data/dataset.ts';
import { type Device, openDevice } from '../../lib/runtime/index.ts';

const test = suite('face dataset');
const demo = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json')), 'demo');
const photographs = ['sample1.jpg', 'sample3.jpg'].map((name) => ({ path: join(demo, name), licence: 'MIT' }));
let device: Device;
let out: string;
test.before(async () => {
  device = await openDevice('cpu');
  out = await mkdtemp(join(tmpdir(), 'refl-faces-'));
});
test.after(async () => {
  device.dispose();
  await rm(out, { recursive: true });
});

test('a person is held out with all pictures of hers, and morphs are made of the others alone', async () => {
  // The third face of both photographs is one woman's.
  const options = { out, heldOut: ['sample3_2'], morphs: 3, seed: 4 };
  const { faces, persons, nearest } = await writeFaceDataset(device, photographs, options);
  assert.equal([faces, persons], [6, 5]);
  assert.ok(nearest > 0.45);
  const names = ['sample1_0.png', 'sample1_1.png', 'sample3_0.png', 'sample3_1.png'];
  assert.equal((await readdir(join(out, 'train'))).sort(), names);
  assert.equal((await readdir(join(out, 'heldout320'))).sort(), ['sample1_2.png', 'sample3_2.png']);
  const { width, height } = await sharp(join(out, 'train/sample1_0.png')).metadata();
  assert.equal([width, height], [256, 256]);

  const manifest = JSON.parse(await readFile(join(out, 'manifest.json'), 'utf8'));
  const held = manifest.faces.filter((face: { file: string }) => face.file.startsWith('heldout'));
  assert.equal([...new Set(held.map((face: { person: string }) => face.person))], ['sample1_2']);
  for (const { first, second } of manifest.morphs) {
    assert.ok(names.includes(`${first}.png`) && names.includes(`${second}.png`) && first !== second);
  }
  assert.is((await sharp(join(out, manifest.morphs[2].file)).metadata()).width, 320);
});

test('holding out a face that is not there is refused, with the names that are', async () => {
  const options = { out, heldOut: ['sample9'], morphs: 0, seed: 4 };
  const error = await writeFaceDataset(device, photographs.slice(0, 1), options).then(
    () => undefined,
    (e) => e,
  );
  assert.is(error?.code, 'ERR_OPTION');
  assert.match(error.message, /sample9.*sample1_0, sample1_1, sample1_2/);
});

test.run();
