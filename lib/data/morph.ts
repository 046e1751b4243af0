import type { Point } from '../faces/align.ts';
import { sample } from '../faces/warp.ts';
import { conv2d } from '../graph/ops/conv2d.ts';
import {
  add,
  affine,
  cast,
  clamp,
  div,
  maximum,
  minimum,
  mul,
  neg,
  sqrt,
  square,
  sub,
} from '../graph/ops/elementwise.ts';
import { embedding } from '../graph/ops/embedding.ts';
import { pad, reshape, split } from '../graph/ops/layout.ts';
import { matmul } from '../graph/ops/matmul.ts';
import { amax, argmax, sum } from '../graph/ops/reduce.ts';
import { constant, input, type Tensor } from '../graph/tensor.ts';
import type { Rgb } from '../image/picture.ts';
import type { Device, Program } from '../runtime/index.ts';
import { delaunay, type Triangle } from './delaunay.ts';

/** An aligned face: a square crop, and its 68 landmarks in the crop's pixels. */
export interface AlignedFace {
  readonly image: Rgb;
  readonly landmarks: readonly Point[];
}

export interface MorphOptions {
  /** Where the landmarks go: 0 to the first face's, 1 to the second's. */
  readonly shape: number;
  /** How much of the second face's skin and features shows. */
  readonly texture: number;
}

/** The landmark that is the mirror image of each. */
const mirrored = [
  ...Array.from({ length: 17 }, (_, i) => 16 - i),
  ...Array.from({ length: 10 }, (_, i) => 26 - i),
  27,
  28,
  29,
  30,
  35,
  34,
  33,
  32,
  31,
  45,
  44,
  43,
  42,
  47,
  46,
  39,
  38,
  37,
  36,
  41,
  40,
  54,
  53,
  52,
  51,
  50,
  49,
  48,
  59,
  58,
  57,
  56,
  55,
  64,
  63,
  62,
  61,
  60,
  67,
  66,
  65,
];

/** The landmarks of a face seen in a mirror: of its picture turned left to right. */
export const mirrorLandmarks = (landmarks: readonly Point[], width: number): Point[] =>
  mirrored.map((i) => ({ x: width - landmarks[i].x, y: landmarks[i].y }));

/** Rows of a program's triangle tables: 76 points have at most 2 * 76 - 5 triangles, and the rest of the rows win nowhere. */
const mostTriangles = 148;

/**
 * Makes faces between two: both are warped, piecewise affine over a Delaunay triangulation, to landmarks between theirs, and
 * within the outline of the face their pixels are mixed. Hair and background stay the first face's, so that nothing shows
 * double; the second face's colours are matched to the first one's before.
 */
export class Morpher {
  readonly size: number;
  private readonly program: Program;

  private constructor(size: number, program: Program) {
    this.size = size;
    this.program = program;
  }

  /** @param size side of the crops, in pixels */
  static async create(device: Device, size: number): Promise<Morpher> {
    return new Morpher(size, await device.compile({ outputs: { morph: trace(size) } }));
  }

  async morph(a: AlignedFace, b: AlignedFace, { shape, texture }: MorphOptions): Promise<Rgb> {
    const [from, to] = [a, b].map(({ landmarks }) => withBorder(landmarks, this.size));
    const between = from.map((p, i) => ({ x: p.x + shape * (to[i].x - p.x), y: p.y + shape * (to[i].y - p.y) }));
    const triangles = delaunay(between).slice(0, mostTriangles);
    const { morph } = await this.program.run({
      first: a.image.data,
      second: b.image.data,
      weights: barycentric(between, triangles),
      maps: maps(between, from, to, triangles),
      texture: Float32Array.of(texture),
    });
    return { width: this.size, height: this.size, data: morph as Uint8Array };
  }

  dispose(): void {
    this.program.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** The landmarks, kept inside of the crop, and eight points of its border, which stay where they are. */
function withBorder(landmarks: readonly Point[], size: number): Point[] {
  const inside = (v: number): number => Math.min(size - 1, Math.max(1, v));
  const [low, middle, high] = [0, size / 2, size];
  const border = [
    [low, low],
    [middle, low],
    [high, low],
    [low, middle],
    [high, middle],
    [low, high],
    [middle, high],
    [high, high],
  ];
  return [...landmarks.map(({ x, y }) => ({ x: inside(x), y: inside(y) })), ...border.map(([x, y]) => ({ x, y }))];
}

/** [3, 3 * mostTriangles]: what takes (x, y, 1) to the barycentric coordinates in every triangle. */
function barycentric(points: readonly Point[], triangles: readonly Triangle[]): Float32Array {
  const columns = 3 * mostTriangles;
  const weights = new Float32Array(3 * columns);
  weights.fill(-1e9, 2 * columns);
  triangles.forEach((triangle, t) => {
    const p = triangle.map((i) => points[i]);
    const area = (p[1].x - p[0].x) * (p[2].y - p[0].y) - (p[2].x - p[0].x) * (p[1].y - p[0].y);
    for (let k = 0; k < 3; k++) {
      const [q, r] = [p[(k + 1) % 3], p[(k + 2) % 3]];
      const column = 3 * t + k;
      weights[column] = (q.y - r.y) / area;
      weights[columns + column] = (r.x - q.x) / area;
      weights[2 * columns + column] = (q.x * r.y - r.x * q.y) / area;
    }
  });
  return weights;
}

/** [mostTriangles, 13]: the affine maps from the morph to the first and to the second face, and 1 inside the face's outline. */
function maps(
  between: readonly Point[],
  from: readonly Point[],
  to: readonly Point[],
  triangles: readonly Triangle[],
): Float32Array {
  const table = new Float32Array(mostTriangles * 13);
  triangles.forEach((triangle, t) => {
    const corners = triangle.map((i) => between[i]);
    [from, to].forEach((target, which) => {
      const map = affineMap(
        corners,
        triangle.map((i) => target[i]),
      );
      table.set(map, t * 13 + which * 6);
    });
    table[t * 13 + 12] = triangle.every((i) => i < 68) ? 1 : 0;
  });
  return table;
}

/** m0 to m5 with u = m0 x + m1 y + m2 and v = m3 x + m4 y + m5, from three pairs of points. */
function affineMap([a, b, c]: Point[], target: Point[]): number[] {
  const [bx, by, cx, cy] = [b.x - a.x, b.y - a.y, c.x - a.x, c.y - a.y];
  const area = bx * cy - cx * by;
  const row = (key: 'x' | 'y'): number[] => {
    const [p, q, r] = target.map((t) => t[key]);
    const dx = ((q - p) * cy - (r - p) * by) / area;
    const dy = ((r - p) * bx - (q - p) * cx) / area;
    return [dx, dy, p - dx * a.x - dy * a.y];
  };
  return [...row('x'), ...row('y')];
}

function trace(size: number): Tensor {
  const pixels = size * size;
  const homogeneous = new Float32Array(pixels * 3);
  for (let i = 0; i < pixels; i++) homogeneous.set([(i % size) + 0.5, Math.floor(i / size) + 0.5, 1], 3 * i);
  const places = constant(homogeneous, [pixels, 3], 'f32');

  // The triangle a pixel lies in is the one whose smallest barycentric coordinate there is the largest.
  const coordinates = reshape(matmul(places, input('weights', [3, 3 * mostTriangles])), [pixels, mostTriangles, 3]);
  const triangle = argmax(neg(amax(neg(coordinates), [2])), 1);
  const row = embedding(input('maps', [mostTriangles, 13]), triangle);
  const [m0, m1, m2, m3, m4, m5, n0, n1, n2, n3, n4, n5, inside] = split(row, 13, 1);
  const [x, y] = split(places, 3, 1);
  const warp = (name: string, a: Tensor[], b: Tensor[]): Tensor => {
    const at = ([p, q, r]: Tensor[]): Tensor => reshape(add(add(mul(p, x), mul(q, y)), r), [size, size]);
    return sample(cast(input(name, [size, size, 3], 'u8'), 'f32'), { x: at(a), y: at(b) }, 'bicubic');
  };
  const first = warp('first', [m0, m1, m2], [m3, m4, m5]);
  const second = warp('second', [n0, n1, n2], [n3, n4, n5]);

  const outline = reshape(inside, [size, size, 1]);
  const weight = mul(
    reshape(blur(reshape(outline, [1, size, size, 1]), size / 40), [size, size, 1]),
    input('texture', [1]),
  );
  const mixed = add(first, mul(weight, sub(recolour(second, first, outline), first)));
  return cast(affine(clamp(mixed, 0, 255), 1, 0.5), 'u8');
}

/** `x` with the mean and deviation that `like` has under the mask, channel by channel; contrast grows by half at most. */
function recolour(x: Tensor, like: Tensor, mask: Tensor): Tensor {
  const count = maximum(sum(mask), 1);
  const moments = (image: Tensor): [mean: Tensor, deviation: Tensor] => {
    const mean = div(sum(mul(image, mask), [0, 1]), count);
    return [mean, sqrt(affine(div(sum(mul(square(sub(image, mean)), mask), [0, 1]), count), 1, 1))];
  };
  const [mean, deviation] = moments(x);
  const [wanted, wantedDeviation] = moments(like);
  return add(mul(sub(x, mean), minimum(div(wantedDeviation, deviation), 1.5)), wanted);
}

/** A Gaussian blur of [1, H, W, 1], cut at three deviations; beyond the border the border repeats. */
function blur(x: Tensor, sigma: number): Tensor {
  const radius = Math.ceil(3 * sigma);
  const bell = Float32Array.from({ length: 2 * radius + 1 }, (_, i) =>
    Math.exp(-((i - radius) ** 2) / (2 * sigma * sigma)),
  );
  const total = bell.reduce((a, b) => a + b, 0);
  const kernel = (shape: number[]): Tensor =>
    constant(
      bell.map((v) => v / total),
      shape,
      'f32',
    );
  const padded = pad(x, [0, radius, radius, 0], [0, radius, radius, 0], 'replicate');
  return conv2d(conv2d(padded, kernel([1, 1, bell.length, 1])), kernel([1, 1, 1, bell.length]));
}
