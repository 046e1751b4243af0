import type { TypedArray } from '../graph/dtype.ts';
import { slice } from '../graph/ops/layout.ts';
import { allFinite } from '../graph/ops/optim.ts';
import { input, type Shape, type Tensor } from '../graph/tensor.ts';
import type { Piece } from '../models/vae.ts';
import { type Statistics, withStatistics } from '../nn/statistics.ts';
import type { RunOptions, Values } from '../runtime/index.ts';
import { coversAll, type ImageShape, makePlane, type Pixels, type Plane, planeOf, type Region } from './plane.ts';
import type { Stages } from './stages.ts';

/** Bytes of a tile before or after a piece, whichever are more: they are copied at once while the event loop waits. */
const tileBytes = 2 ** 22;

/** Statistics as numbers: mean and biased variance of [N, groups]. */
interface Measured {
  readonly mean: Float32Array;
  readonly variance: Float32Array;
}

/** A piece that may look at a second image of the same size too. */
export interface PairedPiece extends Omit<Piece, 'forward'> {
  forward(x: Tensor, other: Tensor): Tensor;
}

export interface PiecesOptions extends RunOptions {
  /** Bytes of a tile before or after a piece; about 4 MB when left out. */
  readonly bytes?: number;
}

/**
 * Runs pieces of an autoencoder one after another over images of any size, each in tiles, in memory that the images' size hardly
 * adds to. What a whole program computes comes out, up to rounding: a tile sees as many positions around it as the piece
 * reads, and norms take the statistics of whole images, which a pass over all tiles of its own collects.
 *
 * The plane `image` is disposed of as soon as it has been read. Progress counts pieces and their tiles.
 */
export async function runPieces(
  stages: Stages,
  key: string,
  pieces: readonly Piece[],
  image: Plane,
  options: PiecesOptions = {},
): Promise<Plane> {
  let plane = image;
  try {
    for (const [i, piece] of pieces.entries()) {
      const onProgress = (fraction: number): void => options.onProgress?.((i + fraction) / pieces.length);
      const next = await runPiece(stages, `${key} ${i}`, piece, plane, { ...options, onProgress });
      await plane.dispose();
      plane = next;
    }
    return plane;
  } catch (error) {
    await plane.dispose();
    throw error;
  }
}

async function runPiece(
  stages: Stages,
  key: string,
  piece: Piece,
  plane: Plane,
  options: PiecesOptions,
): Promise<Plane> {
  const [n, height, width] = plane.shape;
  let output: Plane | undefined;
  try {
    await eachTile(stages, key, piece, [plane], options, async (tile, { y }) => {
      const depth = y.length / (n * tile.height * tile.width);
      const shape: ImageShape = [n, height * piece.scale, width * piece.scale, depth];
      if (coversAll(tile, shape)) {
        output = planeOf(y as Float32Array, shape);
        return;
      }
      output ??= await makePlane(shape);
      await output.write(tile, y as Float32Array);
    });
    return output!;
  } catch (error) {
    await output?.dispose();
    throw error;
  }
}

/**
 * Runs a piece that looks at one image or two of one size, and whose result `convert` turns into what `write` is given, tile by tile.
 * Resolves to whether all of the result was finite.
 */
export async function runPaired(
  stages: Stages,
  key: string,
  piece: PairedPiece,
  planes: readonly Plane<Pixels>[],
  convert: (y: Tensor) => Tensor,
  write: (tile: Region, values: TypedArray) => void,
  options: PiecesOptions = {},
): Promise<boolean> {
  let finite = true;
  await eachTile(
    stages,
    key,
    piece,
    planes,
    options,
    async (tile, values) => {
      finite &&= values.finite[0] > 0;
      write(tile, values.y);
    },
    convert,
  );
  return finite;
}

/** Computes all tiles of a piece's output, after as many passes for statistics as it asks for. */
async function eachTile(
  stages: Stages,
  key: string,
  piece: PairedPiece,
  planes: readonly Plane<Pixels>[],
  { signal, bytes = tileBytes, onProgress }: PiecesOptions,
  use: (tile: Region, values: Values) => Promise<void>,
  convert?: (y: Tensor) => Tensor,
): Promise<void> {
  const [n, height, width, channels] = planes[0].shape;
  const tiles = tilesOf(height * piece.scale, width * piece.scale, sideOf(piece, n, channels, bytes));
  // One tile of everything measures for itself.
  const known: Measured[] | undefined = tiles.length > 1 ? [] : undefined;
  for (let done = false; !done; ) {
    const found: { measured: Measured; positions: number }[] = [];
    for (const [i, tile] of tiles.entries()) {
      const region = regionFor(tile, piece, planes[0].shape);
      const parts: Pixels[] = [];
      for (const plane of planes) parts.push(await plane.read(region));
      const place = { region, tile, shape: [n, region.height, region.width, channels] };
      const values = await run(stages, key, { piece, convert }, place, parts, known, signal);
      done = !!values.y;
      if (done) await use(tile, values);
      else found.push({ measured: values as unknown as Measured, positions: tile.height * tile.width });
      if (done) onProgress?.((i + 1) / tiles.length);
    }
    if (!done) known!.push(together(found));
  }
}

/** Positions a side of a tile of the output for which neither it nor what it comes from takes more than about `bytes`. */
function sideOf(piece: PairedPiece, n: number, channels: number, bytes: number): number {
  if (!Number.isFinite(piece.reach)) return Infinity;
  const small = [n, 8, 8, channels];
  const [, , , outputs] = piece.forward(input('x', small), input('other', small)).shape;
  const perPosition = 4 * n * Math.max(outputs, channels / piece.scale ** 2);
  return Math.max(8, Math.floor(Math.sqrt(bytes / perPosition) / 8) * 8);
}

/** Tiles of at most `side` a side that cover an image without overlap. */
function tilesOf(height: number, width: number, side: number): Region[] {
  const cuts = (length: number): [start: number, size: number][] => {
    const step = Math.min(side, length);
    return Array.from({ length: Math.ceil(length / step) }, (_, i) => [i * step, Math.min(step, length - i * step)]);
  };
  return cuts(height).flatMap(([top, rows]) =>
    cuts(width).map(([left, columns]) => ({ top, left, height: rows, width: columns })),
  );
}

/** What a piece must see to compute a tile of its output. */
function regionFor(tile: Region, { reach, scale }: PairedPiece, [, height, width]: ImageShape): Region {
  const grid = Math.max(1, 1 / scale);
  const span = (start: number, size: number, length: number): [number, number] => {
    // A piece that shrinks its input must begin where its own grid does.
    const from = Math.floor(Math.max(0, Math.floor(start / scale) - reach) / grid) * grid;
    const to = Math.min(length, Math.ceil((start + size) / scale) + reach);
    return [from, to - from];
  };
  const [top, rows] = span(tile.top, tile.height, height);
  const [left, columns] = span(tile.left, tile.width, width);
  return { top, left, height: rows, width: columns };
}

interface Place {
  readonly region: Region;
  readonly tile: Region;
  /** Of what is read. */
  readonly shape: Shape;
}

/** Computes a tile, or the statistics that the piece asks for next. */
function run(
  stages: Stages,
  key: string,
  { piece, convert }: { piece: PairedPiece; convert?: (y: Tensor) => Tensor },
  { region, tile, shape }: Place,
  parts: readonly Pixels[],
  known: readonly Measured[] | undefined,
  signal?: AbortSignal,
): Promise<Values> {
  const { scale } = piece;
  const [n] = shape;
  const start = [0, tile.top - region.top * scale, tile.left - region.left * scale, 0];
  const inside = (y: Tensor): Tensor => slice(y, start, [n, tile.height, tile.width, y.shape[3]]);
  const trace = (): Record<string, Tensor> => {
    const statistics = known?.map(({ mean }, i): Statistics => {
      const each = [n, mean.length / n];
      return { mean: input(`mean ${i}`, each), variance: input(`variance ${i}`, each) };
    });
    const [x, other] = parts.map((part, i) => input(`x ${i}`, shape, part instanceof Uint8Array ? 'u8' : 'f32'));
    const forward = (): Tensor => piece.forward(x, other);
    const result = statistics ? withStatistics(statistics, inside, forward) : { output: forward() };
    // A program takes no feed that nothing reads, and not every pass needs all that is known.
    const feeds = [x, other, ...(statistics ?? []).flatMap(({ mean, variance }) => [mean, variance])].filter((t) => t);
    const corners = Object.fromEntries(
      feeds.map((t, i) => [`corner ${i}`, slice(t, Array(t.rank).fill(0), Array(t.rank).fill(1))]),
    );
    if ('measured' in result) return { ...result.measured, ...corners };
    const y = inside(result.output);
    return convert ? { y: convert(y), finite: allFinite([y]), ...corners } : { y, ...corners };
  };
  const feeds: Record<string, Pixels> = {};
  parts.forEach((part, i) => {
    feeds[`x ${i}`] = part;
  });
  known?.forEach(({ mean, variance }, i) => {
    feeds[`mean ${i}`] = mean;
    feeds[`variance ${i}`] = variance;
  });
  const where = [...shape, start[1], start[2], tile.height, tile.width].join(' ');
  return stages.run(`${key} ${known?.length ?? 'whole'} ${where}`, trace, feeds, { signal });
}

/** The statistics of images out of those of their tiles (Chan et al. 1983, formula 2.1): a few numbers, in float64. */
function together(parts: readonly { measured: Measured; positions: number }[]): Measured {
  const size = parts[0].measured.mean.length;
  const [mean, squares] = [new Float64Array(size), new Float64Array(size)];
  let count = 0;
  for (const { measured, positions } of parts) {
    const all = count + positions;
    for (let k = 0; k < size; k++) {
      const gap = measured.mean[k] - mean[k];
      mean[k] += (gap * positions) / all;
      squares[k] += measured.variance[k] * positions + (gap * gap * count * positions) / all;
    }
    count = all;
  }
  return { mean: Float32Array.from(mean), variance: Float32Array.from(squares, (s) => s / count) };
}
