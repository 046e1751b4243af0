import { type FileHandle, open } from 'node:fs/promises';
import { ReflError } from '../errors.ts';
import type { TypedArray } from '../graph/dtype.ts';
import { type Shape, sizeOf } from '../graph/tensor.ts';
import { type FileType, fileTypes } from './format.ts';
import { toFloat32 } from './half.ts';
import { parseObject } from './json.ts';

/** One tensor of a file. */
export interface Entry {
  readonly dtype: FileType;
  readonly shape: Shape;
  /** Where its bytes begin, from the start of the file. */
  readonly offset: number;
  readonly bytes: number;
}

/** A safetensors file's header, checked: the data has not been read. */
export interface SafetensorsFile {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: ReadonlyMap<string, Entry>;
}

/** The format's own limit, which keeps a hostile header from exhausting memory. */
const largestHeader = 100_000_000;

/**
 * Reads and checks the header of a safetensors file. Throws ERR_FILE if it cannot be read, and ERR_WEIGHTS, naming the
 * file and the key, where it breaks the format: length, JSON, types, shapes, and offsets, which must tile the data.
 */
export async function openSafetensors(path: string): Promise<SafetensorsFile> {
  const { text, start, size } = await readHeader(path);
  const entries = new Map<string, Entry>();
  let metadata: Record<string, string> = {};
  for (const [key, value] of Object.entries(parseObject(text, path))) {
    if (key === '__metadata__') metadata = checkMetadata(path, value);
    else entries.set(key, checkEntry(`${path}: ${key}`, value, start));
  }
  checkTiling(path, entries, start, size);
  return { path, metadata, entries };
}

function readHeader(path: string): Promise<{ text: string; start: number; size: number }> {
  return withFile(path, async (file) => {
    const { size } = await file.stat();
    const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${path} is no safetensors file: ${why}`);
    if (size < 8) throw bad(`it has ${size} bytes`);
    const prefix = Buffer.alloc(8);
    await file.read(prefix, 0, 8, 0);
    const length = prefix.readBigUInt64LE();
    if (length > BigInt(largestHeader)) throw bad(`its header claims ${length} bytes, more than ${largestHeader}`);
    if (8n + length > BigInt(size)) throw bad(`its header claims ${length} bytes, but the file has ${size}`);
    const header = Buffer.alloc(Number(length));
    const { bytesRead } = await file.read(header, 0, header.length, 8);
    if (bytesRead < header.length) throw bad('it ended while its header was read');
    return { text: decode(header, bad), start: 8 + header.length, size };
  });
}

/** Opens `path` for `read`, and turns what the system reports into ERR_FILE. */
async function withFile<T>(path: string, read: (file: FileHandle) => Promise<T>): Promise<T> {
  try {
    const file = await open(path);
    try {
      return await read(file);
    } finally {
      await file.close();
    }
  } catch (cause) {
    if (cause instanceof ReflError) throw cause;
    throw new ReflError('ERR_FILE', `cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}

function decode(header: Buffer, bad: (why: string) => ReflError): string {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(header);
  } catch {
    throw bad('its header is not UTF-8 text');
  }
}

function checkMetadata(path: string, value: unknown): Record<string, string> {
  const ok = isRecord(value) && Object.values(value).every((text) => typeof text === 'string');
  if (!ok) throw new ReflError('ERR_WEIGHTS', `${path}: __metadata__ must hold strings`);
  return value as Record<string, string>;
}

function checkEntry(where: string, value: unknown, start: number): Entry {
  const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${where}: ${why}`);
  if (!isRecord(value)) throw bad('must be an object of dtype, shape and data_offsets');
  const { dtype, shape, data_offsets: offsets } = value;
  if (typeof dtype !== 'string' || !Object.hasOwn(fileTypes, dtype))
    throw bad(`unknown dtype ${JSON.stringify(dtype)}`);
  if (!isWholes(shape)) throw bad(`the shape ${JSON.stringify(shape)} is no list of whole numbers`);
  if (!isWholes(offsets) || offsets.length !== 2)
    throw bad(`data_offsets ${JSON.stringify(offsets)} are no two whole numbers`);
  const [from, to] = offsets;
  const bytes = sizeOf(shape) * fileTypes[dtype as FileType];
  if (to - from !== bytes)
    throw bad(`${dtype}[${shape.join(',')}] takes ${bytes} bytes, data_offsets span ${to - from}`);
  return { dtype: dtype as FileType, shape, offset: start + from, bytes };
}

/** The format leaves no room between tensors, before the first or after the last. */
function checkTiling(path: string, entries: ReadonlyMap<string, Entry>, start: number, size: number): void {
  let end = start;
  const inOrder = [...entries].sort(([, a], [, b]) => a.offset - b.offset || a.bytes - b.bytes);
  for (const [key, { offset, bytes }] of inOrder) {
    const where = `${path}: ${key}: bytes ${offset} to ${offset + bytes}`;
    if (offset + bytes > size) throw new ReflError('ERR_WEIGHTS', `${where} lie beyond the file's ${size}`);
    if (offset < end) throw new ReflError('ERR_WEIGHTS', `${where} overlap another tensor's`);
    if (offset > end) throw new ReflError('ERR_WEIGHTS', `${where} leave a gap of ${offset - end} before them`);
    end = offset + bytes;
  }
  if (end !== size) throw new ReflError('ERR_WEIGHTS', `${path}: ${size - end} bytes follow the last tensor`);
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const isWholes = (value: unknown): value is number[] =>
  Array.isArray(value) && value.every((n) => Number.isSafeInteger(n) && n >= 0);

/**
 * Reads one tensor's values into memory: for small tensors, since weights go to a device without passing JavaScript.
 * F16 and BF16 come as float32; other types that no typed array of the graph holds are refused with ERR_WEIGHTS.
 */
export async function readTensor({ path, entries }: SafetensorsFile, key: string): Promise<TypedArray> {
  const entry = entries.get(key);
  if (!entry) throw new ReflError('ERR_WEIGHTS', `${path} holds no tensor ${key}`);
  const bytes = await withFile(path, async (file) => {
    const buffer = new Uint8Array(entry.bytes);
    const { bytesRead } = await file.read(buffer, 0, buffer.length, entry.offset);
    if (bytesRead < buffer.length)
      throw new ReflError('ERR_WEIGHTS', `${path}: ${key}: the file ended while it was read`);
    return buffer;
  });
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
