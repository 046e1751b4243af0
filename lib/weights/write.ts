import { randomBytes } from 'node:crypto';
import { type FileHandle, open, rename, rm } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ReflError } from '../errors.ts';
import type { TypedArray } from '../graph/dtype.ts';
import { type Shape, sizeOf } from '../graph/tensor.ts';
import { type FileType, fileTypes } from './format.ts';
import { fromFloat32 } from './half.ts';

/** Types that can be written: F16 and BF16 round float32 values, F32 rounds float64 ones, I64 widens i32. */
type Written = Extract<FileType, 'F32' | 'F16' | 'BF16' | 'F64' | 'I32' | 'I64' | 'U8'>;

/** A tensor to be written. */
export interface Source {
  readonly dtype: Written;
  readonly shape: Shape;
  /** Its values, asked for when its turn comes, so that one tensor at a time is in memory. */
  readonly data: () => TypedArray | Promise<TypedArray>;
}

/** A tensor to be written as the bytes that it has elsewhere, of any type. */
export interface ByteSource {
  readonly dtype: FileType;
  readonly shape: Shape;
  readonly chunks: () => AsyncIterable<Uint8Array>;
}

type Sources = ReadonlyMap<string, Source | ByteSource>;

/**
 * Writes a safetensors file, replacing `path` only when all of it is on disk: a temporary file beside it is written,
 * synced and renamed, and removed on failure. Tensors stand in the given order. Throws ERR_FILE when it cannot be
 * written, ERR_WEIGHTS when a tensor's values do not fit what was announced.
 */
export async function writeSafetensors(
  path: string,
  tensors: Sources,
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path)}.${randomBytes(6).toString('hex')}.tmp`);
  try {
    const file = await open(temporary, 'wx');
    try {
      await writeTensors(file, path, tensors, metadata);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
    await syncFolder(dirname(path));
  } catch (cause) {
    await rm(temporary, { force: true });
    if (cause instanceof ReflError) throw cause;
    throw new ReflError('ERR_FILE', `cannot write ${path}: ${(cause as Error).message}`, { cause });
  }
}

async function writeTensors(
  file: FileHandle,
  path: string,
  tensors: Sources,
  metadata: Readonly<Record<string, string>>,
): Promise<void> {
  const header: Record<string, unknown> = Object.keys(metadata).length ? { __metadata__: metadata } : {};
  let end = 0;
  for (const [key, { dtype, shape }] of tensors) {
    const start = end;
    end += sizeOf(shape) * fileTypes[dtype];
    header[key] = { dtype, shape, data_offsets: [start, end] };
  }
  const text = Buffer.from(JSON.stringify(header));
  // Padded so that the data begins at a multiple of 8, as the format asks.
  const head = Buffer.alloc(8 + Math.ceil(text.length / 8) * 8, ' ');
  head.writeBigUInt64LE(BigInt(head.length - 8));
  text.copy(head, 8);
  await file.writeFile(head);
  for (const [key, source] of tensors) {
    const where = `${path}: ${key}`;
    if ('chunks' in source) await copy(file, source, where);
    else await file.writeFile(encode(await source.data(), source.dtype, source.shape, where));
  }
}

async function copy(file: FileHandle, { dtype, shape, chunks }: ByteSource, where: string): Promise<void> {
  let bytes = 0;
  for await (const chunk of chunks()) {
    await file.writeFile(chunk);
    bytes += chunk.length;
  }
  if (bytes !== sizeOf(shape) * fileTypes[dtype]) {
    throw new ReflError('ERR_WEIGHTS', `${where}: ${bytes} bytes do not fill ${dtype}[${shape.join(',')}]`);
  }
}

function encode(data: TypedArray, dtype: Written, shape: Shape, where: string): Uint8Array {
  if (data.length !== sizeOf(shape)) {
    throw new ReflError('ERR_WEIGHTS', `${where}: ${data.length} values do not fill [${shape.join(',')}]`);
  }
  const array = convert(data, dtype);
  if (!array) throw new ReflError('ERR_WEIGHTS', `${where}: cannot write ${data.constructor.name} as ${dtype}`);
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function convert(data: TypedArray, dtype: Written): ArrayBufferView | undefined {
  if (dtype === 'U8') return data instanceof Uint8Array ? data : undefined;
  if (dtype === 'I32') return data instanceof Int32Array ? data : undefined;
  if (dtype === 'I64') return data instanceof Int32Array ? BigInt64Array.from(data, BigInt) : undefined;
  if (!(data instanceof Float32Array || data instanceof Float64Array)) return undefined;
  if (dtype === 'F64') return data instanceof Float64Array ? data : Float64Array.from(data);
  const single = data instanceof Float32Array ? data : Float32Array.from(data);
  return dtype === 'F32' ? single : fromFloat32(single, dtype);
}

/** Makes the rename itself durable. Windows cannot open folders, and needs no such step. */
async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return;
  const folder = await open(path);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
