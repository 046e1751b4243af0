import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import {
  alignment,
  apply,
  type Face,
  fitSimilarity,
  fivePoints,
  invert,
  type Similarity,
} from '../../lib/faces/align.ts';
import { cropFace, pasteFace } from '../../lib/faces/crop.ts';
import { affinePositions, sample } from '../../lib/faces/warp.ts';
import { input } from '../../lib/graph/tensor.ts';
import type { Rgb } from '../../lib/image/picture.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { close } from '../support/assert.ts';

const test = suite('face crops');
let device: Device;
test.before(async () => {
  device = await openDevice('cpu');
});
test.after(() => device.dispose());

/** Smooth colours, of which bicubic sampling loses next to nothing. */
function smooth(width: number, height: number): Rgb {
  const data = new Uint8Array(width * height * 3);
  for (let i = 0; i < data.length; i++) {
    const [x, y, c] = [Math.floor(i / 3) % width, Math.floor(i / 3 / width), i % 3];
    data[i] = 128 + 60 * Math.sin(x / (17 + 3 * c)) + 60 * Math.cos(y / (23 - 4 * c));
  }
  return { width, height, data };
}

const worst = (a: Rgb, b: Rgb): number => a.data.reduce((most, v, i) => Math.max(most, Math.abs(v - b.data[i])), 0);

/** A similarity that turns by `angle`, scales, and takes (cx, cy) to the middle of a crop of `size`. */
function around(cx: number, cy: number, size: number, scale: number, angle: number): Similarity {
  const [a, b] = [scale * Math.cos(angle), scale * Math.sin(angle)];
  return { a, b, tx: size / 2 - a * cx + b * cy, ty: size / 2 - b * cx - a * cy };
}

test('sample: whole pixels are exact, between them both kernels follow their formulas, beyond the border it repeats', async () => {
  const data = Float32Array.from({ length: 5 * 7 * 2 }, (_, i) => Math.sin(i * 1.7));
  const at = (y: number, x: number, c: number): number =>
    data[(Math.min(4, Math.max(0, y)) * 7 + Math.min(6, Math.max(0, x))) * 2 + c];
  const cubic = (t: number): number => {
    const d = Math.abs(t);
    return d < 1 ? 1.5 * d ** 3 - 2.5 * d ** 2 + 1 : d < 2 ? -0.5 * d ** 3 + 2.5 * d ** 2 - 4 * d + 2 : 0;
  };
  const hat = (t: number): number => Math.max(0, 1 - Math.abs(t));
  for (const [kind, kernel] of [
    ['bilinear', hat],
    ['bicubic', cubic],
  ] as const) {
    for (const m of [
      [1, 0, 0, 0, 1, 0],
      [0.7, 0.2, -1.3, -0.4, 0.9, 3.1],
      [2, 0, 0.3, 0, 2, -8],
    ]) {
      const x = input('x', [5, 7, 2]);
      const y = sample(x, affinePositions(input('m', [6]), [4, 6]), kind);
      const { y: got } = await evaluate(device, { y }, { x: data, m: Float32Array.from(m) });
      const want = Array.from({ length: 4 * 6 * 2 }, (_, i) => {
        const [u, v, c] = [(Math.floor(i / 2) % 6) + 0.5, Math.floor(i / 12) + 0.5, i % 2];
        const px = Math.min(8, Math.max(-2, m[0] * u + m[1] * v + m[2] - 0.5));
        const py = Math.min(6, Math.max(-2, m[3] * u + m[4] * v + m[5] - 0.5));
        let total = 0;
        for (let j = Math.floor(py) - 1; j <= Math.floor(py) + 2; j++) {
          for (let k = Math.floor(px) - 1; k <= Math.floor(px) + 2; k++)
            total += kernel(py - j) * kernel(px - k) * at(j, k, c);
        }
        return total;
      });
      close(got, want, 1e-5, `${kind} ${m}`);
    }
  }
});

test('the alignment brings eyes, nose and mouth to their places, wherever and however turned the face is', () => {
  const places = [
    [0.3765, 0.469],
    [0.6235, 0.469],
    [0.501, 0.6133],
    [0.393, 0.7252],
    [0.6115, 0.7252],
  ];
  const truth = around(400, 300, 256, 0.8, 0.4);
  const back = invert(truth);
  const place = (i: number) => apply(back, { x: places[i][0] * 256, y: places[i][1] * 256 });
  const landmarks = Array.from({ length: 68 }, (_, i) =>
    place(i < 36 ? 2 : i < 42 ? 0 : i < 48 ? 1 : i === 48 ? 3 : 4),
  );
  const face: Face = { box: { left: 0, top: 0, width: 1, height: 1 }, score: 1, landmarks };
  const map = alignment(face, 256);
  close([map.a, map.b, map.tx, map.ty], [truth.a, truth.b, truth.tx, truth.ty], 1e-9, 'map');
  const wide = alignment(face, 256, 32);
  close([wide.tx - map.tx, wide.ty - map.ty], [32, 32], 1e-9, 'margin');
  assert.is(fivePoints(landmarks).length, 5);
  const same = fitSimilarity(landmarks, landmarks);
  close([same.a, same.b], [1, 0], 1e-9, 'identity');
});

test('a crop shows the photograph at the mapped places', async () => {
  const photograph = smooth(300, 240);
  for (const [scale, angle] of [
    [1, 0],
    [1.7, 0.3],
    [0.6, -0.5],
    [0.21, 1],
  ] as const) {
    const map = around(150, 120, 64, scale, angle);
    const crop = await cropFace(device, photograph, map, 64);
    const back = invert(map);
    let off = 0;
    for (let i = 0; i < 64 * 64; i++) {
      const p = apply(back, { x: (i % 64) + 0.5, y: Math.floor(i / 64) + 0.5 });
      const [x, y] = [Math.floor(p.x), Math.floor(p.y)];
      if (x < 2 || y < 2 || x > 297 || y > 237) continue;
      // The photograph changes by at most 5 levels a pixel, so half a pixel explains at most 5 in both directions.
      for (let c = 0; c < 3; c++)
        off = Math.max(off, Math.abs(crop.data[3 * i + c] - photograph.data[(y * 300 + x) * 3 + c]));
    }
    assert.ok(off <= (scale < 0.5 ? 14 : 7), `scale ${scale}: off by ${off}`);
  }
});

test('pasting an unchanged crop changes next to nothing, and nothing at all outside of it', async () => {
  const photograph = smooth(400, 300);
  for (const [x, y, scale, angle] of [
    [200, 150, 1, 0],
    [180, 160, 1.6, 0.3],
    [210, 140, 0.7, -0.4],
    [20, 280, 0.9, 0.2],
  ] as const) {
    const map = around(x, y, 128, scale, angle);
    const pasted = await pasteFace(device, photograph, await cropFace(device, photograph, map, 128), map);
    const off = worst(pasted, photograph);
    assert.ok(off <= 3, `at ${x},${y}, scale ${scale}: off by ${off}`);
  }
});

test('a pasted crop fades out without an edge, and keeps to itself', async () => {
  const photograph: Rgb = { width: 300, height: 300, data: new Uint8Array(300 * 300 * 3).fill(100) };
  const crop: Rgb = { width: 128, height: 128, data: new Uint8Array(128 * 128 * 3).fill(200) };
  const map = around(150, 150, 128, 1.28, 0.3);
  const pasted = await pasteFace(device, photograph, crop, map);
  const red = (x: number, y: number): number => pasted.data[(y * 300 + x) * 3];
  assert.is(red(150, 150), 200);
  let steepest = 0;
  for (let y = 0; y < 299; y++) {
    for (let x = 0; x < 299; x++) {
      steepest = Math.max(steepest, Math.abs(red(x, y) - red(x + 1, y)), Math.abs(red(x, y) - red(x, y + 1)));
      const p = apply(map, { x: x + 0.5, y: y + 0.5 });
      if (p.x < 0 || p.y < 0 || p.x > 128 || p.y > 128) assert.is(red(x, y), 100);
    }
  }
  // 100 levels over 15 of 100 pixels, at most 1.5 times as steep in the middle of the ramp.
  assert.ok(steepest <= 12, `a step of ${steepest} levels`);
  assert.is(photograph.data[(150 * 300 + 150) * 3], 100);
});

test('a face as large as the photograph is pasted in bands that leave no trace', async () => {
  const photograph = smooth(1500, 1400);
  const map = around(750, 700, 256, 0.16, 0.1);
  const pasted = await pasteFace(device, photograph, await cropFace(device, photograph, map, 256), map);
  assert.ok(worst(pasted, photograph) <= 12);
});

test.run();
