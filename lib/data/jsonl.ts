import { type FileHandle, open } from 'node:fs/promises';
import { ReflError } from '../errors.ts';
import { fileError, readBytes } from '../image/files.ts';
import { Lock } from './lock.ts';

/** One object of a file of JSON lines, and where it stands, for messages: `pairs.jsonl, line 3`. */
export interface Line {
  readonly where: string;
  readonly record: Readonly<Record<string, unknown>>;
}

export interface Lines {
  readonly lines: readonly Line[];
  /** The bytes that hold whole lines: less than the file where its last line was cut off, by a crash or a full disk. */
  readonly wholeBytes: number;
  readonly cut: boolean;
}

/**
 * Reads a file of JSON objects, one a line. A last line that was cut off is left out; blank lines do not count. Throws
 * ERR_FILE, and ERR_DATA with the number of a line that is no JSON object.
 */
export async function readJsonLines(path: string): Promise<Lines> {
  const text = (await readBytes(path)).toString();
  const lines: Line[] = [];
  const texts = text.split('\n');
  for (const [i, line] of texts.entries()) {
    if (!line.trim()) continue;
    const where = `${path}, line ${i + 1}`;
    const record = parseObject(line);
    if (record) lines.push({ where, record });
    else if (i === texts.length - 1)
      return { lines, cut: true, wholeBytes: Buffer.byteLength(text) - Buffer.byteLength(line) };
    else if (/\b(NaN|Infinity)\b/.test(line))
      throw new ReflError('ERR_DATA', `${where}: it holds a number that is not finite`);
    else throw new ReflError('ERR_DATA', `${where}: it is not a JSON object`);
  }
  return { lines, cut: false, wholeBytes: Buffer.byteLength(text) };
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined;
  } catch {
    return undefined;
  }
}

/** The text under `key` of a line; ERR_DATA where there is none. */
export function textOf({ where, record }: Line, key: string): string {
  const value = record[key];
  if (typeof value === 'string' && value) return value;
  throw new ReflError('ERR_DATA', `${where}: it needs a text under ${JSON.stringify(key)}`);
}

/** The text under `key` of a line, or undefined where the key is missing. */
export const optionalTextOf = (line: Line, key: string): string | undefined =>
  line.record[key] === undefined ? undefined : textOf(line, key);

/** As a file of JSON lines. */
export const toJsonLines = (records: readonly object[]): Buffer =>
  Buffer.from(records.map((record) => `${JSON.stringify(record)}\n`).join(''));

/**
 * A file of JSON lines that grows. Each line is on the disk when {@link append} resolves; a line that a crash cut off is
 * removed when the file is opened again, and one that a full disk cut off at once. One process at a time.
 */
export class JsonLinesFile {
  /** What the file held when it was opened. */
  readonly lines: readonly Line[];
  /** Whether its last line had been cut off, and was removed. */
  readonly cut: boolean;
  private readonly path: string;
  private readonly file: FileHandle;
  private readonly lock: Lock;
  private bytes: number;
  private last = Promise.resolve();

  private constructor(path: string, file: FileHandle, lock: Lock, { lines, cut, wholeBytes }: Lines) {
    this.path = path;
    this.file = file;
    this.lock = lock;
    this.lines = lines;
    this.cut = cut;
    this.bytes = wholeBytes;
  }

  /** Opens or makes a file. Throws ERR_FILE, also where another process has it open for writing, and ERR_DATA. */
  static async open(path: string): Promise<JsonLinesFile> {
    const lock = await Lock.take(`${path}.lock`, path);
    let file: FileHandle | undefined;
    try {
      file = await open(path, 'a').catch((error) => {
        throw fileError('write', path, error);
      });
      const known = await readJsonLines(path);
      const opened = new JsonLinesFile(path, file, lock, known);
      if (known.cut) await file.truncate(known.wholeBytes);
      // A last line that is whole but for its end.
      else if (known.wholeBytes && !(await readBytes(path)).subarray(-1).equals(Buffer.from('\n')))
        await opened.write('\n');
      return opened;
    } catch (error) {
      await file?.close();
      lock.release();
      throw error;
    }
  }

  /** Adds a line behind those of earlier calls. Throws ERR_FILE, and then the file is what it was. */
  append(record: object): Promise<void> {
    const written = this.last.then(() => this.write(`${JSON.stringify(record)}\n`));
    this.last = written.catch(() => {});
    return written;
  }

  private async write(text: string): Promise<void> {
    const bytes = Buffer.from(text);
    try {
      await this.file.appendFile(bytes);
      await this.file.datasync();
      this.bytes += bytes.length;
    } catch (error) {
      await this.file.truncate(this.bytes).catch(() => {});
      throw fileError('write', this.path, error);
    }
  }

  async close(): Promise<void> {
    await this.file.close();
    this.lock.release();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
