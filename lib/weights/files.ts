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
    throw asFileError(path, cause);
  }
}

const asFileError = (path: string, cause: unknown): ReflError =>
  cause instanceof ReflError
    ? cause
    : new ReflError('ERR_FILE', `cannot read ${path}: ${(cause as Error).message}`, { cause });

/** Bytes [offset, offset + length) of a file in chunks. Throws ERR_FILE, and ERR_WEIGHTS where it ends before. */
export async function* readChunks(path: string, offset: number, length: number): AsyncGenerator<Uint8Array> {
  const file = await open(path).catch((cause) => {
    throw asFileError(path, cause);
  });
  try {
    for (let done = 0; done < length; ) {
      const chunk = await readBytes(file, offset + done, Math.min(chunkBytes, length - done));
      if (!chunk.length) throw new ReflError('ERR_WEIGHTS', `${path}: the file ended while it was read`);
      done += chunk.length;
      yield chunk;
    }
  } finally {
    await file.close();
  }
}

const chunkBytes = 4 << 20;

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
