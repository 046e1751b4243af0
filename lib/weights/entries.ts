import { ReflError } from '../errors.ts';
import { type Shape, sameShape, sizeOf } from '../graph/tensor.ts';
import type { Entry, Piece } from './format.ts';

// Stored tensors seen as others, without reading them.

/** The same values in rows of another shape, which has as many. */
export function reshaped(entry: Entry, shape: Shape): Entry {
  const [piece] = entry.pieces;
  if (entry.pieces.length > 1 || piece.strides || sizeOf(shape) !== sizeOf(entry.shape)) {
    throw new ReflError('ERR_WEIGHTS', `${piece.path}: a tensor [${entry.shape}] cannot be taken as [${shape}]`);
  }
  return { ...entry, shape, pieces: [{ ...piece, shape }] };
}

/** A matrix with rows for columns. */
export function transposed(entry: Entry): Entry {
  const [piece] = entry.pieces;
  if (entry.pieces.length > 1 || entry.shape.length !== 2) {
    throw new ReflError('ERR_WEIGHTS', `${piece.path}: a tensor [${entry.shape}] cannot be transposed`);
  }
  const shape = entry.shape.toReversed();
  const strides = (piece.strides ?? [entry.shape[1], 1]).toReversed();
  return { ...entry, shape, pieces: [{ ...piece, shape, strides }] };
}

/** Tensors of one type one after the other along their first axis. */
export function concatenated(parts: readonly Entry[]): Entry {
  const [{ dtype, shape }] = parts;
  const pieces: Piece[] = parts.flatMap((part) => part.pieces);
  const fits = parts.every((part) => part.dtype === dtype && sameShape(part.shape.slice(1), shape.slice(1)));
  if (!fits || !shape.length) {
    const shown = parts.map((part) => `${part.dtype}[${part.shape}]`).join(', ');
    throw new ReflError('ERR_WEIGHTS', `${pieces[0].path}: ${shown} cannot be put together`);
  }
  const rows = parts.reduce((sum, part) => sum + part.shape[0], 0);
  const bytes = parts.reduce((sum, part) => sum + part.bytes, 0);
  return { dtype, shape: [rows, ...shape.slice(1)], bytes, pieces };
}
