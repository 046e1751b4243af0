// Tables of numbers as NumPy and MATLAB save them. They are small: values are read at once, as float64.
import { inflateSync } from 'node:zlib';
import { type Entry as Member, openPromise } from 'yauzl';
import { ReflError } from '../errors.ts';
import { type Shape, sizeOf } from '../graph/tensor.ts';
import { readBytes, withFile } from './files.ts';
import { openWeights } from './open.ts';
import { readTensor } from './read.ts';

/** A table in rows, whatever order its file has it in. */
export interface NumberArray {
  readonly shape: Shape;
  readonly values: Float64Array;
}

/** Bytes of one array, or of a whole MATLAB file: a limit that keeps a hostile file from exhausting memory. */
const mostBytes = 1 << 30;

/**
 * Reads the arrays of a file by name: NumPy's .npz, MATLAB's .mat (version 5 to 7), or anything that {@link openWeights} opens.
 * What a file is, its content says. Of .npz and .mat files only arrays of real numbers are taken. Throws ERR_FILE, and ERR_WEIGHTS where
 * a file is damaged.
 */
export async function readArrays(path: string): Promise<Map<string, NumberArray>> {
  const start = await withFile(path, (file) => readBytes(file, 0, 128));
  if (start.toString('latin1').startsWith('MATLAB 5.0 MAT-file')) return readMat(path, start);
  if (start.subarray(0, 4).equals(Buffer.from('PK\x03\x04'))) {
    const arrays = await readNpz(path);
    if (arrays.size) return arrays;
  }
  const file = await openWeights(path);
  const arrays = new Map<string, NumberArray>();
  for (const [key, { shape }] of file.entries) {
    arrays.set(key, { shape, values: Float64Array.from(await readTensor(file, key)) });
  }
  return arrays;
}

const damaged = (path: string, why: string, cause?: unknown): ReflError =>
  new ReflError('ERR_WEIGHTS', `${path}: ${why}: fetch or save it again`, { cause });

/** The members of an archive whose names end in .npy, without that ending. */
async function readNpz(path: string): Promise<Map<string, NumberArray>> {
  const arrays = new Map<string, NumberArray>();
  try {
    const zip = await openPromise(path, { lazyEntries: true, autoClose: false });
    try {
      for await (const member of zip.eachEntry() as AsyncIterable<Member>) {
        if (!member.fileName.endsWith('.npy')) continue;
        if (member.uncompressedSize > mostBytes)
          throw new Error(`${member.fileName} is larger than ${mostBytes} bytes`);
        const parts: Buffer[] = [];
        for await (const part of await zip.openReadStreamPromise(member)) parts.push(part as Buffer);
        const array = readNpy(Buffer.concat(parts), member.fileName);
        if (array) arrays.set(member.fileName.slice(0, -'.npy'.length), array);
      }
    } finally {
      zip.close();
    }
  } catch (cause) {
    throw damaged(path, `it is no whole .npz file (${(cause as Error).message})`, cause);
  }
  return arrays;
}

/** What NumPy calls the types that are taken, little-endian. */
const numpyTypes = {
  '<f8': Float64Array,
  '<f4': Float32Array,
  '<i8': BigInt64Array,
  '<i4': Int32Array,
  '|u1': Uint8Array,
};

/** One array of NumPy; undefined for types that are no real numbers. */
function readNpy(data: Buffer, name: string): NumberArray | undefined {
  if (data.subarray(0, 6).toString('latin1') !== '\x93NUMPY') throw new Error(`${name} is no NumPy array`);
  const wide = data[6] > 1;
  const start = wide ? 12 : 10;
  const length = wide ? data.readUInt32LE(8) : data.readUInt16LE(8);
  const header = data.subarray(start, start + length).toString('latin1');
  const type = /'descr':\s*'([^']*)'/.exec(header)?.[1] ?? '';
  const dimensions = /'shape':\s*\(([^)]*)\)/.exec(header)?.[1];
  const byColumns = /'fortran_order':\s*(True|False)/.exec(header)?.[1];
  if (dimensions === undefined || !byColumns) throw new Error(`the header of ${name} cannot be read`);
  if (!(type in numpyTypes)) return undefined;
  const shape = dimensions
    .split(',')
    .filter((part) => part.trim())
    .map(Number);
  const Type = numpyTypes[type as keyof typeof numpyTypes];
  const count = sizeOf(shape);
  const bytes = data.subarray(start + length);
  if (!(bytes.length === count * Type.BYTES_PER_ELEMENT)) throw new Error(`${name} does not hold what it announces`);
  // Copied, so that values begin where their type may.
  const values = Float64Array.from(new Type(new Uint8Array(bytes).buffer) as Float64Array, Number);
  return { shape, values: byColumns === 'True' ? inRows(values, shape) : values };
}

/** Values that lie column by column, in rows. */
function inRows(values: Float64Array, shape: Shape): Float64Array {
  const result = new Float64Array(values.length);
  const index = shape.map(() => 0);
  for (let at = 0; at < values.length; at++) {
    let place = 0;
    index.forEach((i, axis) => {
      place = place * shape[axis] + i;
    });
    result[place] = values[at];
    for (let axis = 0; axis < shape.length && ++index[axis] === shape[axis]; axis++) index[axis] = 0;
  }
  return result;
}

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

async function readMat(path: string, start: Buffer): Promise<Map<string, NumberArray>> {
  if (start.toString('latin1', 126, 128) !== 'IM') throw damaged(path, 'it is no little-endian MATLAB file');
  const data = await withFile(path, (file) => readBytes(file, 128, mostBytes));
  const arrays = new Map<string, NumberArray>();
  try {
    for (const { type, body } of elements(data)) {
      const element =
        type === compressed ? [...elements(inflateSync(body, { maxOutputLength: mostBytes }))][0] : { type, body };
      if (element?.type !== matrix) continue;
      const found = readMatrix(element.body);
      if (found) arrays.set(found.name, found.array);
    }
  } catch (cause) {
    throw damaged(path, `it is no whole MATLAB file (${(cause as Error).message})`, cause);
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
