// timeout: 300 s
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { type DatasetOptions, writeFaceDataset } from '../../lib/data/dataset.ts';
import { FaceGatherer, type GatheredFace } from '../../lib/data/faces.ts';
import { type Device, openDevice } from '../../lib/runtime/index.ts';
import { failure, temporaryFolder } from '../restore/support.ts';

const test = suite('face dataset');
const demo = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json')), 'demo');
const folder = temporaryFolder();
const crop = { size: 128, margin: 16 };
let device: Device;
let faces: GatheredFace[];
test.before(async () => {
  device = await openDevice('cpu');
  using gatherer = await FaceGatherer.load(device, crop);
  const gathered = ['sample1', 'sample3'].map((name) => gatherer.gather({ name, path: join(demo, `${name}.jpg`) }));
  faces = (await Promise.all(gathered)).flatMap((photograph) => photograph.faces);
});
test.after(() => device.dispose());

const write = (name: string, options: Partial<DatasetOptions>) =>
  writeFaceDataset(device, faces, {
    ...{ out: join(folder, name), crop, heldOut: [], share: 0, morphs: 0, seed: 4 },
    ...options,
  });

interface Manifest {
  faces: {
    set: string;
    file: string;
    person: string;
    photograph: string;
    box: number[];
    landmarks: number[];
    scale: number;
  }[];
  photographs: { name: string; path: string; sha256: string }[];
  morphs: { file: string; first: string; second: string }[];
}

const manifestOf = async (name: string): Promise<Manifest> =>
  JSON.parse(await readFile(join(folder, name, 'manifest.json'), 'utf8'));

test('a person is held out with all pictures of hers, and morphs are made of the others alone', async () => {
  // The third face of both photographs is one woman's.
  const summary = await write('named', { heldOut: ['sample3_2'], morphs: 3 });
  const { nearest, ...counts } = summary;
  assert.equal(counts, { faces: 6, persons: 5, train: 4, heldout: 2, morphs: 3 });
  assert.ok(nearest!.distance > 0.45);
  const out = join(folder, 'named');
  const names = ['sample1_0.png', 'sample1_1.png', 'sample3_0.png', 'sample3_1.png'];
  assert.equal((await readdir(join(out, 'train'))).sort(), names);
  assert.equal((await readdir(join(out, 'heldout160'))).sort(), ['sample1_2.png', 'sample3_2.png']);
  const { width, height } = await sharp(join(out, 'train/sample1_0.png')).metadata();
  assert.equal([width, height], [128, 128]);

  const manifest = await manifestOf('named');
  const held = manifest.faces.filter(({ set }) => set === 'heldout');
  assert.equal([...new Set(held.map(({ person }) => person))], ['sample1_2']);
  assert.equal([manifest.faces[0].landmarks.length, manifest.faces[0].box.length], [136, 4]);
  assert.match(manifest.photographs[1].sha256, /^[0-9a-f]{64}$/);
  for (const { first, second } of manifest.morphs) {
    assert.ok(names.includes(`${first}.png`) && names.includes(`${second}.png`) && first !== second);
  }
  assert.is((await sharp(join(out, manifest.morphs[2].file)).metadata()).width, 160);
});

test('people are drawn by the seed, the same whatever the order of the photographs, beyond those that are named', async () => {
  const held = async (name: string, options: Partial<DatasetOptions>): Promise<string> => {
    await write(name, options);
    return (await readdir(join(folder, name, 'heldout'))).sort().join(' ');
  };
  const first = await held('first', { share: 0.4, seed: 1 });
  faces.reverse();
  // The woman in both photographs is named after the first of her pictures, which the order decides.
  const alone = faces.filter(({ id }) => id !== 'sample3_2');
  faces.reverse();
  await writeFaceDataset(device, alone, {
    ...{ out: join(folder, 'reversed'), crop, heldOut: [], share: 0.4, morphs: 0, seed: 1 },
  });
  const reversed = (await readdir(join(folder, 'reversed', 'heldout'))).sort().join(' ');
  assert.is(reversed, first.replace(' sample3_2.png', ''));
  const drawn = new Set([first, await held('second', { share: 0.4, seed: 2 }), await held('third', { share: 0.4 })]);
  assert.ok(drawn.size > 1, 'another seed holds out others');
  const both = await held('both', { share: 0.4, heldOut: ['*1_0'] });
  assert.match(both, /sample1_0/);
  assert.is(new Set((await manifestOf('both')).faces.filter((f) => f.set === 'heldout').map((f) => f.person)).size, 2);
  assert.is(
    await held('photograph', { heldOut: ['sample3'] }),
    'sample1_2.png sample3_0.png sample3_1.png sample3_2.png',
  );
});

test('holding out a face that is not there is refused, with the names that are, and nothing is written', async () => {
  const error = await failure(write('never', { heldOut: ['sample1_0', 'sample9', 'ample*'] }));
  assert.is(error.code, 'ERR_OPTION');
  assert.match(error.message, /named sample9, ample\*: there are sample1_0, sample1_1, sample1_2/);
  assert.not.ok((await readdir(folder)).some((name) => /never/.test(name)));
});

test('an abort, or files that are there already, leave the folder as it was', async () => {
  const stop = new AbortController();
  const onMorph = (): void => stop.abort(new Error('enough'));
  assert.is((await failure(write('aborted', { morphs: 3, signal: stop.signal, onMorph }))).message, 'enough');
  await mkdir(join(folder, 'full'));
  await writeFile(join(folder, 'full', 'note.txt'), 'kept');
  assert.match((await failure(write('full', {}))).message, /full: cannot make the folder: there are files in it/);
  assert.equal(await readdir(join(folder, 'full')), ['note.txt']);
  assert.not.ok((await readdir(folder)).some((name) => /aborted|tmp/.test(name)));
  await mkdir(join(folder, 'empty'));
  await write('empty', {});
  assert.ok((await readdir(join(folder, 'empty'))).includes('manifest.json'));
});

test('morphs need two people', async () => {
  assert.is((await failure(write('one', { morphs: 1, heldOut: ['sample*'] }))).code, 'ERR_OPTION');
});

test.run();
