import { randomBytes } from 'node:crypto';
import { rmSync } from 'node:fs';
import { mkdir, open, readFile, rename, rm, stat, unlink } from 'node:fs/promises';
import { basename, dirname, join, resolve } from 'node:path';
import { ReflError } from '../errors.ts';

const reasons: Readonly<Record<string, string>> = {
  ENOENT: 'no such file or folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
  EISDIR: 'it is a folder',
  ENOTDIR: 'a part of its path is not a folder',
  EEXIST: 'a file of that name is in the way',
  ENOTEMPTY: 'there are files in it',
  ENOSPC: 'no space is left on the disk',
  EROFS: 'the file system is read-only',
  ENAMETOOLONG: 'the name is too long',
  ELOOP: 'its symbolic links lead in a circle',
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

/**
 * Makes a folder and those it lies in; one that is there already is left as it is. Throws ERR_FILE. (Node's own recursive
 * `mkdir` asks for ever where a file system such as /proc takes no folders.)
 */
export async function makeFolder(path: string): Promise<void> {
  const missing: string[] = [];
  let folder = resolve(path);
  try {
    while (!(await exists(folder))) {
      missing.push(folder);
      folder = dirname(folder);
    }
    for (const name of missing.reverse()) await mkdir(name);
    if (!(await stat(path)).isDirectory()) throw Object.assign(new Error(), { code: 'EEXIST' });
  } catch (error) {
    throw fileError('make the folder', path, error);
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

const unfinished = new Set<string>();
process.on('exit', () => {
  for (const path of unfinished) {
    try {
      rmSync(path, { recursive: true });
    } catch {
      // The write that owned it removed or renamed it.
    }
  }
});

const temporaryBeside = (path: string): string =>
  join(dirname(path), `.${basename(path).slice(0, 100)}.${randomBytes(6).toString('hex')}.tmp`);

/**
 * Writes a file so that `path` holds its old contents or all of `data`, never a part: a temporary file beside it is
 * renamed over it once its bytes are on the disk. A process that exits midway removes the temporary file. Throws ERR_FILE.
 */
export async function writeAtomic(path: string, data: Uint8Array): Promise<void> {
  const temporary = temporaryBeside(path);
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

/**
 * Makes a folder so that `path` holds all that `fill` writes into the folder it is given, or is what it was: absent, or
 * empty. A process that exits midway removes what there is. Throws ERR_FILE, and what `fill` throws.
 */
export async function writeFolderAtomic<T>(path: string, fill: (folder: string) => Promise<T>): Promise<T> {
  const temporary = temporaryBeside(resolve(path));
  unfinished.add(temporary);
  try {
    await makeFolder(temporary);
    const result = await fill(temporary);
    await rename(temporary, path).catch((error) => {
      throw fileError('make the folder', path, error);
    });
    return result;
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    throw error;
  } finally {
    unfinished.delete(temporary);
  }
}
