import type { Point } from '../faces/align.ts';

/** Indices of a triangle's corners. */
export type Triangle = readonly [number, number, number];

/**
 * The Delaunay triangulation of a few hundred points (Bowyer 1981, Watson 1981): points are added one by one, and the
 * triangles whose circumcircle holds the new one are replaced by a fan around it. Quadratic in the number of points.
 */
export function delaunay(points: readonly Point[]): Triangle[] {
  const far = 1e4 * Math.max(1, ...points.flatMap(({ x, y }) => [Math.abs(x), Math.abs(y)]));
  const n = points.length;
  const all = [...points, { x: -far, y: -far }, { x: far, y: -far }, { x: 0, y: far }];
  let triangles: Triangle[] = [[n, n + 1, n + 2]];
  points.forEach((point, index) => {
    const hit = triangles.filter((t) =>
      inCircumcircle(
        t.map((i) => all[i]),
        point,
      ),
    );
    const edges = hit.flatMap(([a, b, c]) => [
      [a, b],
      [b, c],
      [c, a],
    ]);
    // An edge of two of them runs inside the hole, once in each direction; the others are its rim.
    const rim = edges.filter(([a, b]) => !edges.some(([c, d]) => c === b && d === a));
    const kept = triangles.filter((t) => !hit.includes(t));
    triangles = [...kept, ...rim.map(([a, b]): Triangle => [a, b, index])];
  });
  return triangles.filter((t) => t.every((i) => i < n));
}

/** For a triangle that turns the same way as (-, -), (+, -), (0, +): the sign of the usual 3x3 determinant. */
function inCircumcircle([a, b, c]: Point[], p: Point): boolean {
  const [ax, ay, bx, by, cx, cy] = [a.x - p.x, a.y - p.y, b.x - p.x, b.y - p.y, c.x - p.x, c.y - p.y];
  const [aa, bb, cc] = [ax * ax + ay * ay, bx * bx + by * by, cx * cx + cy * cy];
  return aa * (bx * cy - cx * by) - bb * (ax * cy - cx * ay) + cc * (ax * by - bx * ay) > 0;
}
