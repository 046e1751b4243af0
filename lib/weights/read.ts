import { ReflError } from '../errors.ts';
import type { TypedArray } from '../graph/dtype.ts';
import { sizeOf } from '../graph/tensor.ts';
import { readBytes, withFile } from './files.ts';
import { fileTypes, type Piece, type WeightsFile } from './format.ts';
import { toFloat32 } from './half.ts';

/**
 * Reads one tensor's values into memory: for small tensors, since weights go to a device without passing JavaScript.
 * F16 and BF16 come as float32; other types that no typed array of the graph holds are refused with ERR_WEIGHTS.
 */
export async function readTensor({ path, entries }: WeightsFile, key: string): Promise<TypedArray> {
  const entry = entries.get(key);
  if (!entry) throw new ReflError('ERR_WEIGHTS', `${path} holds no tensor ${key}`);
  const bytes = new Uint8Array(entry.bytes);
  let at = 0;
  for (const piece of entry.pieces) {
    const part = await readPiece(piece, fileTypes[entry.dtype], key);
    bytes.set(part, at);
    at += part.length;
  }
  switch (entry.dtype) {
    case 'F32':
      return new Float32Array(bytes.buffer);
    case 'F64':
      return new Float64Array(bytes.buffer);
    case 'I32':
      return new Int32Array(bytes.buffer);
    case 'U8':
      return bytes;
    case 'F16':
    case 'BF16':
      return toFloat32(new Uint16Array(bytes.buffer), entry.dtype);
    default:
      throw new ReflError('ERR_WEIGHTS', `${path}: ${key}: ${entry.dtype} values cannot be read as a tensor`);
  }
}

/** The bytes of a piece's values, of `width` bytes each, in rows. */
async function readPiece({ path, offset, shape, strides }: Piece, width: number, key: string): Promise<Uint8Array> {
  const count = sizeOf(shape);
  const steps = strides ?? rows(shape);
  const span = count && shape.reduce((sum, extent, i) => sum + (extent - 1) * steps[i], 1);
  const bytes = await withFile(path, (file) => readBytes(file, offset, span * width));
  if (bytes.length < span * width) {
    throw new ReflError('ERR_WEIGHTS', `${path}: ${key}: the file ended while it was read`);
  }
  if (!strides) return bytes;
  const inRows = new Uint8Array(count * width);
  const index = shape.map(() => 0);
  for (let i = 0, from = 0; i < count; i++) {
    inRows.set(bytes.subarray(from * width, (from + 1) * width), i * width);
    for (let axis = shape.length; axis-- > 0; ) {
      from += steps[axis];
      if (++index[axis] < shape[axis]) break;
      from -= shape[axis] * steps[axis];
      index[axis] = 0;
    }
  }
  return inRows;
}

const rows = (shape: Piece['shape']): number[] => shape.map((_, i) => sizeOf(shape.slice(i + 1)));
