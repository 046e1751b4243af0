import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { delaunay } from '../../lib/data/delaunay.ts';
import { groupPersons } from '../../lib/data/faces.ts';
import { type AlignedFace, Morpher, mirrorLandmarks } from '../../lib/data/morph.ts';
import { type Device, openDevice } from '../../lib/runtime/index.ts';
import { random } from '../support/random.ts';

const test = suite('morphs');
let device: Device;
let morpher: Morpher;
test.before(async () => {
  device = await openDevice('cpu');
  morpher = await Morpher.create(device, 64);
});
test.after(() => {
  morpher.dispose();
  device.dispose();
});

test('delaunay: triangles cover the hull once, and no point lies in a circumcircle', () => {
  for (let seed = 0; seed < 5; seed++) {
    const { next } = random(seed);
    const corners = [
      [0, 0],
      [100, 0],
      [0, 100],
      [100, 100],
    ].map(([x, y]) => ({ x, y }));
    const points = [...corners, ...Array.from({ length: 60 }, () => ({ x: 100 * next(), y: 100 * next() }))];
    const triangles = delaunay(points);
    let area = 0;
    for (const triangle of triangles) {
      const [a, b, c] = triangle.map((i) => points[i]);
      const twice = (b.x - a.x) * (c.y - a.y) - (c.x - a.x) * (b.y - a.y);
      area += Math.abs(twice) / 2;
      const [aa, bb, cc] = [a, b, c].map(({ x, y }) => x * x + y * y);
      const x = (aa * (b.y - c.y) + bb * (c.y - a.y) + cc * (a.y - b.y)) / (2 * twice);
      const y = (aa * (c.x - b.x) + bb * (a.x - c.x) + cc * (b.x - a.x)) / (2 * twice);
      const radius = Math.hypot(a.x - x, a.y - y);
      for (const p of points) assert.ok(Math.hypot(p.x - x, p.y - y) > radius * (1 - 1e-9), `seed ${seed}`);
    }
    assert.ok(Math.abs(area - 10_000) < 1e-6, `seed ${seed}: area ${area}`);
  }
});

/** A face of sorts: 68 points on rings, and a picture of coloured waves. */
function face(seed: number): AlignedFace {
  const { next } = random(seed);
  const landmarks = Array.from({ length: 68 }, (_, i) => {
    const radius = i < 17 ? 22 : 4 + (i % 9);
    const angle = i < 17 ? (Math.PI * i) / 16 : i * 2.4;
    return { x: 32 - radius * Math.cos(angle) + next(), y: 30 + radius * Math.sin(angle) + next() };
  });
  const data = Uint8Array.from({ length: 64 * 64 * 3 }, (_, i) => {
    const [x, y] = [Math.floor(i / 3) % 64, Math.floor(i / 192)];
    return 128 + 100 * Math.sin((x + seed * 7) / 9 + (i % 3)) * Math.cos(y / (8 + seed));
  });
  return { image: { width: 64, height: 64, data }, landmarks };
}

const differences = (a: Uint8Array, b: Uint8Array): number[] => Array.from(a, (v, i) => Math.abs(v - b[i]));

test('a face morphed with itself, or not at all, is itself', async () => {
  const [a, b] = [face(1), face(2)];
  for (const [second, options] of [
    [a, { shape: 0.5, texture: 0.7 }],
    [b, { shape: 0, texture: 0 }],
  ] as const) {
    const { data } = await morpher.morph(a, second, options);
    assert.ok(Math.max(...differences(data, a.image.data)) <= 1);
  }
});

test('a morph moves the face, mixes it within its outline, and leaves the border to the first face', async () => {
  const [a, b] = [face(1), face(2)];
  const still = await morpher.morph(a, b, { shape: 0, texture: 0 });
  const moved = await morpher.morph(a, b, { shape: 1, texture: 0 });
  const mixed = await morpher.morph(a, b, { shape: 0, texture: 1 });
  const at = (image: { data: Uint8Array }, x: number, y: number) =>
    image.data.subarray((y * 64 + x) * 3, (y * 64 + x) * 3 + 3);
  assert.ok(Math.max(...differences(moved.data, still.data)) > 5, 'shape');
  assert.ok(Math.max(...differences(at(mixed, 32, 34), at(still, 32, 34))) > 5, 'texture');
  for (const [x, y] of [
    [0, 0],
    [63, 0],
    [0, 63],
    [63, 63],
  ])
    assert.equal(at(mixed, x, y), at(still, x, y));
  assert.equal(
    (await morpher.morph(a, b, { shape: 0.4, texture: 0.4 })).data,
    (await morpher.morph(a, b, { shape: 0.4, texture: 0.4 })).data,
  );
});

test('mirrored landmarks change sides, and come back', () => {
  const { landmarks } = face(3);
  const mirrored = mirrorLandmarks(landmarks, 64);
  assert.is(mirrored[36].x, 64 - landmarks[45].x);
  assert.is(mirrored[8].y, landmarks[8].y);
  const back = mirrorLandmarks(mirrored, 64);
  assert.ok(back.every((p, i) => Math.abs(p.x - landmarks[i].x) < 1e-9 && p.y === landmarks[i].y));
});

test('persons are grouped by single linkage, and faces of one photograph do not link', () => {
  const [first, second, third] = ['a', 'b', 'c'].map((name) => ({ name, path: name }));
  const at = (x: number, source: typeof first) => ({ embedding: Float32Array.of(x, 0), source });
  const faces = [at(0, first), at(2, first), at(0.4, second), at(0.8, third), at(1.9, second), at(0.1, first)];
  const groups = groupPersons(faces).map((person) => person.map((face) => faces.indexOf(face)).sort());
  assert.equal(
    groups.sort((a, b) => a[0] - b[0]),
    [
      [0, 2, 3, 5],
      [1, 4],
    ],
  );
});

test.run();
