import { randomUUID } from 'node:crypto';
import { type FileHandle, open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ReflError } from '../errors.ts';

/** [N, H, W, C]. */
export type ImageShape = readonly [n: number, height: number, width: number, channels: number];

/** A rectangle of positions. */
export interface Region {
  readonly top: number;
  readonly left: number;
  readonly height: number;
  readonly width: number;
}

/** What images are read as: float32, or bytes as they come. */
export type Pixels = Float32Array | Uint8Array;

/** Images too large for a program, read and written by regions: copying all of them at once would hold the event loop. */
export interface Plane<T extends Pixels = Float32Array> {
  readonly shape: ImageShape;
  /** All of it, where it is in memory. */
  readonly values?: T;
  /** The values of a region of all images, [N, height, width, C]: not to be changed, for they may be the plane's own. */
  read(region: Region): Promise<T>;
  /** Replaces a region. */
  write(region: Region, values: T): Promise<void>;
  /** Frees its memory or its file. Safe to call twice. */
  dispose(): Promise<void>;
}

/** Bytes of an image up to which it is kept in memory. */
const largestInMemory = 2 ** 29;

/** A plane of zeros: in memory, or, beyond `limit` bytes, in a file of the system's temporary folder that has no name. */
export async function makePlane(shape: ImageShape, limit = largestInMemory): Promise<Plane> {
  const size = shape.reduce((a, b) => a * b, 1);
  return size * 4 <= limit ? planeOf(new Float32Array(size), shape) : openFilePlane(shape);
}

/** Where the rows of a region lie: index of the first value in the plane and in the region. */
function* rowsOf([n, h, w, c]: ImageShape, { top, left, height, width }: Region): Generator<[number, number]> {
  for (let i = 0; i < n; i++) {
    for (let y = 0; y < height; y++) yield [((i * h + top + y) * w + left) * c, (i * height + y) * width * c];
  }
}

/** Puts the values of a region [N, height, width, C] where they belong in an image. */
export function writeRegion<T extends Pixels>(image: T, shape: ImageShape, region: Region, values: T): void {
  const length = region.width * shape[3];
  for (const [to, from] of rowsOf(shape, region)) image.set(values.subarray(from, from + length), to);
}

/** The values of a region of an image, [N, height, width, C]. */
export function readRegion<T extends Pixels>(image: T, shape: ImageShape, region: Region): T {
  const [n, , , c] = shape;
  const length = region.width * c;
  const values = new (image.constructor as new (size: number) => T)(n * region.height * length);
  for (const [from, to] of rowsOf(shape, region)) values.set(image.subarray(from, from + length), to);
  return values;
}

/** Whether a region is all of an image. */
export const coversAll = ({ top, left, height, width }: Region, [, rows, columns]: ImageShape): boolean =>
  top === 0 && left === 0 && height === rows && width === columns;

/** All of a plane, which is disposed of. */
export async function takeAll(plane: Plane): Promise<Float32Array> {
  const [, height, width] = plane.shape;
  try {
    return plane.values ?? (await plane.read({ top: 0, left: 0, height, width }));
  } finally {
    await plane.dispose();
  }
}

/** The upper left part of a plane, of another shape; it lives as long as the plane does. */
export const part = (plane: Plane, shape: ImageShape): Plane => ({ ...plane, shape, values: undefined });

/** A plane continued to the right and below to `shape`, by zeros or by its border. It is only read, and lives as long as the plane does. */
export function continued(plane: Plane, shape: ImageShape, mode: 'zero' | 'replicate'): Plane {
  const [n, , , channels] = shape;
  const [, height, width] = plane.shape;
  const span = (start: number, size: number, length: number): [number, number] => {
    const from = Math.min(start, length - 1);
    return [from, Math.max(1, Math.min(start + size, length) - from)];
  };
  return {
    ...plane,
    shape,
    values: undefined,
    async read(region) {
      const [top, rows] = span(region.top, region.height, height);
      const [left, columns] = span(region.left, region.width, width);
      const inner = await plane.read({ top, left, height: rows, width: columns });
      if (rows === region.height && columns === region.width && top === region.top && left === region.left)
        return inner;
      const values = new Float32Array(n * region.height * region.width * channels);
      for (let i = 0; i < n * region.height; i++) {
        const [image, y] = [Math.floor(i / region.height), i % region.height];
        if (mode === 'zero' && region.top + y >= height) continue;
        const from = (image * rows + Math.min(y, rows - 1)) * columns * channels;
        const line = inner.subarray(from, from + columns * channels);
        const at = i * region.width * channels;
        const known = Math.max(0, Math.min(columns, width - region.left));
        values.set(line.subarray(0, known * channels), at);
        const border = line.subarray(-channels);
        if (mode === 'zero') continue;
        for (let x = known; x < region.width; x++) values.set(border, at + x * channels);
      }
      return values;
    },
  };
}

/** A plane of values that are in memory already; they are not copied. */
export const planeOf = <T extends Pixels>(values: T, shape: ImageShape): Plane<T> => ({
  shape,
  values,
  read: async (region) => (coversAll(region, shape) ? values : readRegion(values, shape, region)),
  write: async (region, part) => writeRegion(values, shape, region, part),
  dispose: async () => {},
});

/** Rows that are read or written at once. */
const abreast = 16;

async function openFilePlane(shape: ImageShape): Promise<Plane> {
  const path = join(tmpdir(), `refl-native-${randomUUID()}`);
  const failed = (cause: unknown): never => {
    const gigabytes = (shape.reduce((a, b) => a * b, 4) / 1e9).toFixed(1);
    const what = `${gigabytes} GB of intermediate results in ${tmpdir()}: ${(cause as Error).message}`;
    throw new ReflError('ERR_FILE', `cannot keep ${what}; TMPDIR can name another folder`, { cause });
  };
  let file: FileHandle | undefined;
  try {
    file = await open(path, 'wx+', 0o600);
    await unlink(path);
    await file.truncate(shape.reduce((a, b) => a * b, 4));
  } catch (cause) {
    await file?.close();
    return failed(cause);
  }
  const handle = file;
  let closed = false;
  const each = async (region: Region, part: Float32Array, move: (row: Uint8Array, at: number) => Promise<unknown>) => {
    const length = region.width * shape[3];
    const rows = [...rowsOf(shape, region)];
    try {
      while (rows.length) {
        const some = rows.splice(0, abreast).map(([at, from]) => {
          const row = part.subarray(from, from + length);
          return move(new Uint8Array(row.buffer, row.byteOffset, row.byteLength), at * 4);
        });
        await Promise.all(some);
      }
    } catch (cause) {
      failed(cause);
    }
  };
  return {
    shape,
    async read(region) {
      const part = new Float32Array(shape[0] * region.height * region.width * shape[3]);
      await each(region, part, (row, at) => handle.read(row, 0, row.length, at));
      return part;
    },
    write: (region, part) => each(region, part, (row, at) => handle.write(row, 0, row.length, at)),
    async dispose() {
      if (!closed) await handle.close();
      closed = true;
    },
  };
}
