import { randomBytes } from 'node:crypto';
import { readFileSync, rmSync } from 'node:fs';
import { link, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { ReflError } from '../errors.ts';
import { fileError } from '../image/files.ts';

/** Who holds a lock: a process number alone could have gone to another process since. */
interface Holder {
  readonly pid: number;
  readonly started: string;
}

/** When a process began, in the kernel's words; empty where it is gone, and where there is no /proc. */
function startOf(pid: number): string {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name, in brackets, may hold anything; the start is field 22, the twentieth behind it.
    return fields.slice(fields.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return '';
  }
}

function isAlive({ pid, started }: Holder): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  return !started || startOf(pid) === started;
}

const held = new Set<string>();
process.on('exit', () => {
  for (const path of held) rmSync(path, { force: true });
});

/**
 * A file that says which process writes some others, so that a second one is refused. It goes when it is released or the
 * process exits; one that a killed process left is taken over. Processes of one machine only.
 */
export class Lock {
  private readonly path: string;

  private constructor(path: string) {
    this.path = path;
  }

  /** Takes the lock file `path`. Throws ERR_FILE where another process, or this one, has it; `what` is what it guards. */
  static async take(path: string, what: string): Promise<Lock> {
    const mine = `${path}.${randomBytes(6).toString('hex')}`;
    const holder: Holder = { pid: process.pid, started: startOf(process.pid) };
    try {
      await writeFile(mine, JSON.stringify(holder), { flag: 'wx' });
      for (;;) {
        try {
          // A link comes into being with its contents, so nobody reads half of them.
          await link(mine, path);
          held.add(path);
          return new Lock(path);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        }
        await removeStale(path, what);
      }
    } catch (error) {
      throw error instanceof ReflError ? error : fileError('lock', path, error);
    } finally {
      await rm(mine, { force: true });
    }
  }

  /** Safe to call twice. */
  release(): void {
    if (held.delete(this.path)) rmSync(this.path, { force: true });
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** Removes a lock whose process is gone; throws ERR_FILE where it lives. */
async function removeStale(path: string, what: string): Promise<void> {
  const text = await readFile(path, 'utf8').catch(() => undefined);
  if (text === undefined) return;
  const holder = parse(text);
  if (holder && isAlive(holder)) {
    throw new ReflError('ERR_FILE', `${what} is being written by process ${holder.pid}: wait for it, or end it`);
  }
  const aside = `${path}.${randomBytes(6).toString('hex')}`;
  try {
    await rename(path, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  // Another process may have removed the stale lock and taken its own in between: that one goes back.
  if ((await readFile(aside, 'utf8')) !== text) await link(aside, path).catch(() => {});
  await rm(aside, { force: true });
}

function parse(text: string): Holder | undefined {
  try {
    const { pid, started } = JSON.parse(text) as Holder;
    return Number.isSafeInteger(pid) && pid > 0 && typeof started === 'string' ? { pid, started } : undefined;
  } catch {
    return undefined;
  }
}
