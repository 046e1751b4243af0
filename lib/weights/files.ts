import { type FileHandle, open } from 'node:fs/promises';
import { ReflError } from '../errors.ts';

/** Opens `path` for `read`, and turns what the system reports into ERR_FILE. */
export async function withFile<T>(path: string, read: (file: FileHandle) => Promise<T>): Promise<T> {
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

/** Bytes [offset, offset + length) of an open file, or as many of them as it has. */
export async function readBytes(file: FileHandle, offset: number, length: number): Promise<Buffer> {
  const buffer = Buffer.alloc(length);
  let done = 0;
  while (done < length) {
    const { bytesRead } = await file.read(buffer, done, length - done, offset + done);
    if (bytesRead === 0) break;
    done += bytesRead;
  }
  return buffer.subarray(0, done);
}
