// NumPy's archives of arrays: a zip archive with one .npy file for each.
import { crc32, inflateRawSync } from 'node:zlib';
import { sizeOf } from '../graph/tensor.ts';
import { inRows, type NumberArray } from './table.ts';

/** Whether a file that begins so is a zip archive whose first member is an array; PyTorch's begin with other members. */
export function isNpz(start: Buffer): boolean {
  if (!start.subarray(0, 4).equals(Buffer.from('PK\x03\x04'))) return false;
  return start.toString('latin1', 30, 30 + start.readUInt16LE(26)).endsWith('.npy');
}

/**
 * The arrays of real numbers in an archive, by name. Throws for anything that is not as it should be: places beyond the end as Buffer
 * does, and wrong checksums. (`yauzl` is for archives that do not fit into memory.)
 */
export function readNpz(data: Buffer): Map<string, NumberArray> {
  const arrays = new Map<string, NumberArray>();
  const end = data.lastIndexOf(Buffer.from('PK\x05\x06'));
  if (end < 0) throw new Error('its end is missing');
  const count = data.readUInt16LE(end + 10);
  for (let i = 0, at = data.readUInt32LE(end + 16); i < count; i++) {
    if (data.readUInt32LE(at) !== 0x02014b50) throw new Error('its list of members is damaged');
    const [method, crc] = [data.readUInt16LE(at + 10), data.readUInt32LE(at + 16)];
    const [packed, bytes] = [data.readUInt32LE(at + 20), data.readUInt32LE(at + 24)];
    const nameLength = data.readUInt16LE(at + 28);
    const name = data.toString('latin1', at + 46, at + 46 + nameLength);
    const local = data.readUInt32LE(at + 42);
    at += 46 + nameLength + data.readUInt16LE(at + 30) + data.readUInt16LE(at + 32);
    if (!name.endsWith('.npy')) continue;
    const from = local + 30 + data.readUInt16LE(local + 26) + data.readUInt16LE(local + 28);
    if (from + packed > data.length) throw new Error(`${name} reaches beyond the end`);
    const stored = data.subarray(from, from + packed);
    if (method !== 0 && method !== 8) throw new Error(`${name} is compressed in a way that NumPy does not use`);
    const array = method ? inflateRawSync(stored, { maxOutputLength: bytes || 1 }) : stored;
    if (crc32(array) !== crc) throw new Error(`${name} does not have its checksum`);
    const found = readNpy(array, name);
    if (found) arrays.set(name.slice(0, -'.npy'.length), found);
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
  if (!Object.hasOwn(numpyTypes, type)) return undefined;
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
