/** A point in pixels from the image's left and top edge; the first pixel's centre is (0.5, 0.5). */
export interface Point {
  readonly x: number;
  readonly y: number;
}

/** A part of a photograph, in pixels. */
export interface Box {
  readonly left: number;
  readonly top: number;
  readonly width: number;
  readonly height: number;
}

/** A face in a photograph. */
export interface Face {
  /** From the brows or the hairline to the chin, within the photograph. */
  readonly box: Box;
  /** The detector's confidence, 0 to 1. */
  readonly score: number;
  /** The 68 points of the iBUG scheme: jaw 0-16, brows 17-26, nose 27-35, eyes 36-47, mouth 48-67. */
  readonly landmarks: readonly Point[];
}

/** The map (x, y) to (a x - b y + tx, b x + a y + ty): a turn, one scale and a shift. */
export interface Similarity {
  readonly a: number;
  readonly b: number;
  readonly tx: number;
  readonly ty: number;
}

/**
 * Where an aligned crop has the eyes' centres, the tip of the nose and the corners of the mouth, as fractions of its side:
 * about their mean places in FFHQ, which face restorers are trained on.
 */
const template: readonly Point[] = [
  { x: 0.3765, y: 0.469 },
  { x: 0.6235, y: 0.469 },
  { x: 0.501, y: 0.6133 },
  { x: 0.393, y: 0.7252 },
  { x: 0.6115, y: 0.7252 },
];

const centre = (points: readonly Point[]): Point => ({
  x: points.reduce((sum, p) => sum + p.x, 0) / points.length,
  y: points.reduce((sum, p) => sum + p.y, 0) / points.length,
});

/** Eyes, nose and mouth corners of 68 landmarks, in the template's order. */
export const fivePoints = (landmarks: readonly Point[]): Point[] => [
  centre(landmarks.slice(36, 42)),
  centre(landmarks.slice(42, 48)),
  landmarks[30],
  landmarks[48],
  landmarks[54],
];

/** The similarity that brings `from` closest to `to`, in the sense of least squares (Umeyama 1991, in two dimensions). */
export function fitSimilarity(from: readonly Point[], to: readonly Point[]): Similarity {
  const [p, q] = [centre(from), centre(to)];
  let dot = 0;
  let cross = 0;
  let spread = 0;
  from.forEach((point, i) => {
    const [x, y] = [point.x - p.x, point.y - p.y];
    const [u, v] = [to[i].x - q.x, to[i].y - q.y];
    dot += x * u + y * v;
    cross += x * v - y * u;
    spread += x * x + y * y;
  });
  const [a, b] = [dot / spread, cross / spread];
  return { a, b, tx: q.x - a * p.x + b * p.y, ty: q.y - b * p.x - a * p.y };
}

/**
 * The map from a photograph to a crop of `size` pixels a side in which the face stands as in FFHQ. `margin` more pixels on
 * each side show more of the photograph at the same scale.
 */
export function alignment({ landmarks }: Face, size: number, margin = 0): Similarity {
  const place = template.map(({ x, y }) => ({ x: x * size + margin, y: y * size + margin }));
  return fitSimilarity(fivePoints(landmarks), place);
}

export const scaleOf = ({ a, b }: Similarity): number => Math.hypot(a, b);

export const apply = ({ a, b, tx, ty }: Similarity, { x, y }: Point): Point => ({
  x: a * x - b * y + tx,
  y: b * x + a * y + ty,
});

export function invert({ a, b, tx, ty }: Similarity): Similarity {
  const n = a * a + b * b;
  return { a: a / n, b: -b / n, tx: -(a * tx + b * ty) / n, ty: (b * tx - a * ty) / n };
}

/** How far apart an aligned crop has the eyes, as a fraction of its side. */
export const eyeDistance = template[1].x - template[0].x;

/** The window of an aligned crop from the brows to the chin, as fractions of its side. */
export const inner = { left: 0.2, top: 0.3, side: 0.6 };

/** The map from a photograph to a crop of that window, where the networks expect a face: `size` pixels a side. */
export function innerFace(face: Face, size: number): Similarity {
  const whole = size / inner.side;
  const map = alignment(face, whole);
  return { ...map, tx: map.tx - inner.left * whole, ty: map.ty - inner.top * whole };
}
