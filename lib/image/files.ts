import { randomBytes } from 'node:crypto';
import { unlinkSync } from 'node:fs';
import { open, readFile, rename, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { ReflError } from '../errors.ts';

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a folder',
  ENOTDIR: 'a part of its path is not a folder',
  EEXIST: 'a file of that name is in the way',
  ENOSPC: 'no space is left on the disk',
  EROFS: 'the file system is read-only',
  ENAMETOOLONG: 'the name is too long',
};

/** An ERR_FILE that says what could not be done to which file, and why. */
export function fileError(action: string, path: string, cause: unknown): ReflError {
  const { code = '', message } = cause as NodeJS.ErrnoException;
  return new ReflError('ERR_FILE', `${path}: cannot ${action}: ${reasons[code] ?? message}`, { cause });
}

/** All bytes of a regular file. Throws ERR_FILE. */
export async function readBytes(path: string): Promise<Buffer> {
  try {
    // A pipe or a device could deliver bytes for ever.
    if (!(await stat(path)).isFile()) throw new Error('it is not a regular file');
    return await readFile(path);
  } catch (error) {
    throw fileError('read', path, error);
  }
}

const unfinished = new Set<string>();
process.on('exit', () => {
  for (const path of unfinished) {
    try {
      unlinkSync(path);
    } catch {
      // The write that owned it removed or renamed it.
    }
  }
});

/**
 * Writes a file so that `path` holds its old contents or all of `data`, never a part: a temporary file beside it is
 * renamed over it once its bytes are on the disk. A process that exits midway removes the temporary file. Throws ERR_FILE.
 */
export async function writeAtomic(path: string, data: Uint8Array): Promise<void> {
  const temporary = join(dirname(path), `.${basename(path).slice(0, 100)}.${randomBytes(6).toString('hex')}.tmp`);
  unfinished.add(temporary);
  try {
    const file = await open(temporary, 'wx');
    try {
      await file.writeFile(data);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await unlink(temporary).catch(() => {});
    throw fileError('write', path, error);
  } finally {
    unfinished.delete(temporary);
  }
}
