// Distances by which the watch tells whether restored faces still are those of the photographs.
import { fileURLToPath } from 'node:url';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { alignment } from '../../../lib/faces/align.ts';
import { cropFace } from '../../../lib/faces/crop.ts';
import { FaceFinder } from '../../../lib/faces/finder.ts';
import { input } from '../../../lib/graph/tensor.ts';
import { decodeImage } from '../../../lib/image/picture.ts';
import { type Device, openDevice } from '../../../lib/runtime/index.ts';
import { faceDistances } from '../../../lib/train/refl/measures.ts';

const side = 128;
const test = suite<{ device: Device; faces: Uint8Array[] }>('measures', {} as never);
test.before(async (context) => {
  context.device = await openDevice('cpu', { threads: 1 });
  const finder = await FaceFinder.load(context.device);
  context.faces = await Promise.all(
    ['portrait-1', 'portrait-2'].map(async (name) => {
      const picture = await decodeImage(fileURLToPath(new URL(`../../../samples/${name}.jpg`, import.meta.url)));
      const [face] = await finder.find(picture);
      return (await cropFace(context.device, picture, alignment(face, side), side)).data;
    }),
  );
  finder.dispose();
});
test.after(({ device }) => device.dispose());

test('a face is at no distance from itself, a blurred one near, a moved one by as much, another person far', async ({
  device,
  faces: [own, other],
}) => {
  using parameters = device.parameters();
  const measures = await faceDistances(parameters);
  const pair = ['images', 'targets'].map((name) => input(name, [1, side, side, 3]));
  const judged = { images: pair[0], targets: pair[1], captions: input('captions', [1, 1], 'i32') };
  const outputs = Object.fromEntries(Object.entries(measures).map(([name, measure]) => [name, measure(judged)]));
  using program = await device.compile({ outputs }, { parameters });
  const unit = (bytes: Uint8Array): Float32Array => Float32Array.from(bytes, (v) => v / 255);
  const distances = async (bytes: Uint8Array): Promise<Record<string, number>> => {
    const values = await program.run({ images: unit(bytes), targets: unit(own) });
    return Object.fromEntries(Object.entries(values).map(([name, [value]]) => [name, Number(value)]));
  };
  const raw = { raw: { width: side, height: side, channels: 3 } } as const;
  const [same, blurred, stranger] = [
    await distances(own),
    await distances(await sharp(own, raw).blur(1).raw().toBuffer()),
    await distances(other),
  ];
  for (const name of ['identity', 'landmarks', 'perceptual']) {
    assert.ok(same[name] < 1e-6, `${name}: ${same[name]}`);
    assert.ok(
      0 < blurred[name] && blurred[name] < 0.7 * stranger[name],
      `${name}: ${JSON.stringify([blurred, stranger])}`,
    );
  }
  assert.ok(blurred.identity < 0.5 && stranger.identity > 0.5, 'as the network tells people apart');

  // 4 of 128 pixels of a crop that has the eyes 0.247 sides apart.
  const moved = await distances(
    await sharp(own, raw)
      .extract({ left: 4, top: 0, width: side - 4, height: side })
      .extend({ right: 4, extendWith: 'copy' })
      .raw()
      .toBuffer(),
  );
  const expected = (100 * 4) / (0.247 * side);
  assert.ok(Math.abs(moved.landmarks - expected) < 0.4 * expected, `${moved.landmarks}, expected about ${expected}`);
});

test.run();
