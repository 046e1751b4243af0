import { ReflError } from '../errors.ts';
import { type Shape, sizeOf } from '../graph/tensor.ts';
import { readBytes, withFile } from './files.ts';
import { type Entry, type FileType, fileTypes, largestHeader, type WeightsFile } from './format.ts';
import { parseObject } from './json.ts';

/**
 * Reads and checks the header of a safetensors file. Throws ERR_FILE if it cannot be read, and ERR_WEIGHTS, naming the
 * file and the key, where it breaks the format: length, JSON, types, shapes, and offsets, which must tile the data.
 */
export async function openSafetensors(path: string): Promise<WeightsFile> {
  const { text, start, size } = await readHeader(path);
  const stored = new Map<string, Stored>();
  let metadata: Record<string, string> = {};
  for (const [key, value] of Object.entries(parseObject(text, path))) {
    if (key === '__metadata__') metadata = checkMetadata(path, value);
    else stored.set(key, checkEntry(`${path}: ${key}`, value, start));
  }
  checkTiling(path, stored, start, size);
  const entries = new Map<string, Entry>();
  for (const [key, { dtype, shape, offset, bytes }] of stored) {
    entries.set(key, { dtype, shape, bytes, pieces: [{ path, offset, shape }] });
  }
  return { path, metadata, entries };
}

/** A tensor whose bytes lie in one row from `offset` on. */
interface Stored {
  readonly dtype: FileType;
  readonly shape: Shape;
  readonly offset: number;
  readonly bytes: number;
}

function readHeader(path: string): Promise<{ text: string; start: number; size: number }> {
  return withFile(path, async (file) => {
    const { size } = await file.stat();
    const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${path} is no safetensors file: ${why}`);
    if (size < 8) throw bad(`it has ${size} bytes`);
    const length = (await readBytes(file, 0, 8)).readBigUInt64LE();
    if (length > BigInt(largestHeader)) throw bad(`its header claims ${length} bytes, more than ${largestHeader}`);
    if (8n + length > BigInt(size)) throw bad(`its header claims ${length} bytes, but the file has ${size}`);
    const header = await readBytes(file, 8, Number(length));
    if (header.length < length) throw bad('it ended while its header was read');
    return { text: decode(header, bad), start: 8 + header.length, size };
  });
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

function checkEntry(where: string, value: unknown, start: number): Stored {
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
function checkTiling(path: string, entries: ReadonlyMap<string, Stored>, start: number, size: number): void {
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
