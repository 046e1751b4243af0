// Our graphs against the package's own TensorFlow.js results on its photographs, which golden.json holds: boxes and scores of
// both detectors, landmarks of given boxes, and embeddings of 150 x 150 pieces cut at given places.
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { FaceFinder } from '../../lib/faces/finder.ts';
import { FaceRecogniser } from '../../lib/faces/recogniser.ts';
import { decodeImage, type Rgb, sharpOf } from '../../lib/image/picture.ts';
import { type Device, openDevice } from '../../lib/runtime/index.ts';
import { close } from '../support/assert.ts';

type Numbers = [number, number, number, number];

interface Golden {
  ssd: { score: number; box: Numbers }[];
  tiny: { score: number; box: Numbers }[];
  faces: { box: Numbers; landmarks: number[]; chip: [number, number]; embedding: number[] }[];
}

const golden = JSON.parse(readFileSync(new URL('golden.json', import.meta.url), 'utf8')) as Record<string, Golden>;
const demo = join(dirname(createRequire(import.meta.url).resolve('@vladmandic/face-api/package.json')), 'demo');
const boxOf = ([left, top, width, height]: Numbers) => ({ left, top, width, height });

const test = suite('face networks');
let device: Device;
let finder: FaceFinder;
let recogniser: FaceRecogniser;
const pictures = new Map<string, Rgb>();
test.before(async () => {
  device = await openDevice('cpu');
  finder = await FaceFinder.load(device);
  recogniser = await FaceRecogniser.load(device);
  for (const name of Object.keys(golden)) pictures.set(name, await decodeImage(join(demo, name)));
});
test.after(() => {
  finder.dispose();
  recogniser.dispose();
  device.dispose();
});

/** Asserts that each of `wanted` is among `found`: boxes within 1 pixel of 1920, which the package rounds its padding to. */
function contains(found: { box: object; score: number }[], wanted: Golden['ssd'], limit: number): void {
  for (const { score, box } of wanted) {
    const [left, top, width, height] = box;
    const near = found.find((f) => Math.abs(f.score - score) <= limit);
    assert.ok(near, `a face of score ${score}`);
    const own = near.box as { left: number; top: number; width: number; height: number };
    const off = Math.max(...[own.left - left, own.top - top, own.width - width, own.height - height].map(Math.abs));
    assert.ok(off <= 1, `box ${JSON.stringify(own)} should be ${box}`);
  }
}

test('both detectors agree with the package', async () => {
  for (const [name, { ssd, tiny }] of Object.entries(golden)) {
    const picture = pictures.get(name)!;
    const found = await finder.candidates(picture, { ssd: 0.5, tiny: 0.5 });
    // The package leaves repeats of a face out; here that comes later.
    contains(found.ssd, ssd, 2e-5);
    contains(found.tiny, tiny, 2e-5);
  }
});

test('landmarks and embeddings agree with the package', async () => {
  for (const [name, { faces }] of Object.entries(golden)) {
    const picture = pictures.get(name)!;
    for (const { box, landmarks, chip, embedding } of faces) {
      const points = await finder.landmarksIn(picture, boxOf(box), false);
      // Where the padding to a square is odd, the package undoes half a pixel more than it added.
      const off = Math.max(
        ...points.flatMap(({ x, y }, i) => [x - landmarks[2 * i], y - landmarks[2 * i + 1]]).map(Math.abs),
      );
      assert.ok(off < 0.51, `${name}: landmarks are off by ${off} pixels`);

      const piece = sharpOf(picture).extract({ left: chip[0], top: chip[1], width: 150, height: 150 });
      const { data } = await piece.raw().toBuffer({ resolveWithObject: true });
      close(await recogniser.recognise({ width: 150, height: 150, data }), embedding, 1e-4, `${name}: embedding`);
    }
  }
});

test('every face of three photographs is found once, upright, and told apart', async () => {
  const embeddings: { name: string; embedding: Float32Array }[] = [];
  for (const [name, count] of [
    ['sample1.jpg', 3],
    ['sample3.jpg', 3],
    ['sample6.jpg', 4],
  ] as const) {
    const picture = pictures.get(name) ?? (await decodeImage(join(demo, name)));
    const faces = await finder.find(picture);
    assert.is(faces.length, count, name);
    for (const [i, face] of faces.entries()) {
      const [left, right] = [face.landmarks[36], face.landmarks[45]];
      assert.ok(left.x < right.x && Math.abs(left.y - right.y) < 1.5 * (right.x - left.x), `${name} ${i}: eyes`);
      embeddings.push({ name: `${name} ${i}`, embedding: await recogniser.embed(picture, face) });
    }
  }
  const near: string[] = [];
  embeddings.forEach((a, i) => {
    for (const b of embeddings.slice(0, i)) {
      const distance = Math.hypot(...a.embedding.map((v, k) => v - b.embedding[k]));
      if (distance < 0.45) near.push(`${b.name} = ${a.name}`);
    }
  });
  assert.equal(near, ['sample1.jpg 2 = sample3.jpg 2']);
});

test('where there is no face, none is found', async () => {
  for (const [width, height] of [
    [1, 1],
    [640, 30],
    [200, 300],
  ]) {
    const data = Uint8Array.from({ length: width * height * 3 }, (_, i) => (i * 7) % 200);
    assert.equal(await finder.find({ width, height, data }), []);
  }
});

test.run();
