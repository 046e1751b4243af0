// MATLAB's files of version 5 to 7: elements of a type, a length and data, compressed or not.
import { inflateSync } from 'node:zlib';
import { sizeOf } from '../graph/tensor.ts';
import { inRows, type NumberArray } from './table.ts';

/** Types of MATLAB's data elements: numbers, a matrix, and a compressed element. */
const matlabTypes: Readonly<Record<number, (data: Buffer) => ArrayLike<number>>> = {
  2: (data) => data,
  3: (data) => Array.from({ length: data.length / 2 }, (_, i) => data.readInt16LE(2 * i)),
  4: (data) => Array.from({ length: data.length / 2 }, (_, i) => data.readUInt16LE(2 * i)),
  5: (data) => Array.from({ length: data.length / 4 }, (_, i) => data.readInt32LE(4 * i)),
  6: (data) => Array.from({ length: data.length / 4 }, (_, i) => data.readUInt32LE(4 * i)),
  7: (data) => Array.from({ length: data.length / 4 }, (_, i) => data.readFloatLE(4 * i)),
  9: (data) => Array.from({ length: data.length / 8 }, (_, i) => data.readDoubleLE(8 * i)),
};
const [matrix, compressed] = [14, 15];
/** Classes of matrices that hold real numbers: double to unsigned 32 bits. */
const numeric = (kind: number): boolean => kind >= 6 && kind <= 13;

/** Bytes of an element when it is unpacked: a limit that keeps a hostile file from exhausting memory. */
const mostBytes = 1 << 30;

/** The arrays of real numbers in a file, by name. Throws for anything that is not as it should be. */
export function readMat(data: Buffer): Map<string, NumberArray> {
  if (data.toString('latin1', 126, 128) !== 'IM') throw new Error('its bytes are not in little-endian order');
  const arrays = new Map<string, NumberArray>();
  for (const { type, body } of elements(data.subarray(128))) {
    const unpack = (): { type: number; body: Buffer } =>
      [...elements(inflateSync(body, { maxOutputLength: mostBytes }))][0];
    const element = type === compressed ? unpack() : { type, body };
    if (element?.type !== matrix) continue;
    const found = readMatrix(element.body);
    if (found) arrays.set(found.name, found.array);
  }
  return arrays;
}

/** The elements that follow one another in `data`, each padded to 8 bytes; short ones have their data in the tag. */
function* elements(data: Buffer): Generator<{ type: number; body: Buffer }> {
  for (let at = 0; at < data.length; ) {
    if (at + 8 > data.length) throw new Error('it ends within an element');
    const tag = data.readUInt32LE(at);
    const small = tag >>> 16;
    const [type, size, from] = small ? [tag & 0xffff, small, at + 4] : [tag, data.readUInt32LE(at + 4), at + 8];
    if (from + size > data.length) throw new Error('an element reaches beyond the end');
    yield { type, body: data.subarray(from, from + size) };
    // Compressed elements are not padded.
    at = small ? at + 8 : type === compressed ? from + size : from + Math.ceil(size / 8) * 8;
  }
}

/** A matrix with its name; undefined where it holds no real numbers. */
function readMatrix(data: Buffer): { name: string; array: NumberArray } | undefined {
  const [flags, dimensions, name, real] = [...elements(data)];
  if (!real || !numeric(flags.body[0])) return undefined;
  const shape = Array.from(matlabTypes[5](dimensions.body));
  const values = Float64Array.from(matlabTypes[real.type]?.(real.body) ?? []);
  if (values.length !== sizeOf(shape)) throw new Error(`${name.body} does not hold what it announces`);
  return { name: name.body.toString('latin1'), array: { shape, values: inRows(values, shape) } };
}
