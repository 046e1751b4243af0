import { slice } from '../graph/ops/layout.ts';
import { input, type Tensor } from '../graph/tensor.ts';
import type { Piece } from '../models/vae.ts';
import { type Statistics, withStatistics } from '../nn/statistics.ts';
import type { RunOptions, Values } from '../runtime/index.ts';
import { type ImageShape, makePlane, type Plane, type Region } from './plane.ts';
import type { Stages } from './stages.ts';

/** Bytes of the input of a tile, which is copied at once while the event loop waits. */
const tileBytes = 2 ** 24;

/** Statistics as numbers: mean and biased variance of [N, groups]. */
interface Measured {
  readonly mean: Float32Array;
  readonly variance: Float32Array;
}

export interface PiecesOptions extends RunOptions {
  /** Bytes of a tile's input; about 16 MB when left out. */
  readonly bytes?: number;
}

/**
 * Runs pieces of an autoencoder one after another over images of any size, each in tiles, in memory that the images' size hardly
 * adds to. What a whole program computes comes out, up to rounding: a tile sees as many positions around it as the piece
 * reads, and norms take the statistics of whole images, which a pass over all tiles of its own collects.
 *
 * The plane `image` is disposed of as soon as it has been read. Progress counts tiles of the finest resolution.
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
      const next = await runPiece(stages, `${key} ${i}`, piece, plane, options);
      await plane.dispose();
      plane = next;
      options.onProgress?.((i + 1) / pieces.length);
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
  { signal, bytes = tileBytes }: PiecesOptions,
): Promise<Plane> {
  const [n, height, width, channels] = plane.shape;
  const side = Number.isFinite(piece.reach)
    ? Math.max(8, Math.floor(Math.sqrt(bytes / 4 / n / channels) / 8) * 8)
    : Infinity;
  const known: Measured[] = [];
  let output: Plane | undefined;
  try {
    for (;;) {
      const found: { measured: Measured; positions: number }[] = [];
      for (const tile of tilesOf(height * piece.scale, width * piece.scale, side)) {
        const region = regionFor(tile, piece, plane.shape);
        const values = await run(
          stages,
          key,
          piece,
          { region, tile, n, channels },
          await plane.read(region),
          known,
          signal,
        );
        if (values.y) {
          const depth = values.y.length / (n * tile.height * tile.width);
          output ??= await makePlane([n, height * piece.scale, width * piece.scale, depth]);
          await output.write(tile, values.y as Float32Array);
        } else found.push({ measured: values as unknown as Measured, positions: tile.height * tile.width });
      }
      if (output) return output;
      known.push(together(found));
    }
  } catch (error) {
    await output?.dispose();
    throw error;
  }
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
function regionFor(tile: Region, { reach, scale }: Piece, [, height, width]: ImageShape): Region {
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
  readonly n: number;
  readonly channels: number;
}

/** Computes a tile, or the statistics that the piece asks for next. */
function run(
  stages: Stages,
  key: string,
  piece: Piece,
  { region, tile, n, channels }: Place,
  x: Float32Array,
  known: readonly Measured[],
  signal?: AbortSignal,
): Promise<Values> {
  const { scale } = piece;
  const start = [0, tile.top - region.top * scale, tile.left - region.left * scale, 0];
  const inside = (y: Tensor): Tensor => slice(y, start, [n, tile.height, tile.width, y.shape[3]]);
  const trace = (): Record<string, Tensor> => {
    const statistics = known.map(({ mean }, i): Statistics => {
      const shape = [n, mean.length / n];
      return { mean: input(`mean ${i}`, shape), variance: input(`variance ${i}`, shape) };
    });
    const seen = input('x', [n, region.height, region.width, channels]);
    const result = withStatistics(statistics, inside, () => piece.forward(seen));
    return 'output' in result ? { y: inside(result.output) } : { ...result.measured };
  };
  const feeds: Record<string, Float32Array> = { x };
  known.forEach(({ mean, variance }, i) => {
    feeds[`mean ${i}`] = mean;
    feeds[`variance ${i}`] = variance;
  });
  const where = [region.height, region.width, start[1], start[2], tile.height, tile.width, n].join(' ');
  return stages.run(`${key} ${known.length} ${where}`, trace, feeds, { signal });
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
