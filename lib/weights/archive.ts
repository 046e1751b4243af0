import type { FileHandle } from 'node:fs/promises';
import { fromRandomAccessReaderPromise, type Entry as Listed, RandomAccessReader, type ZipFile } from 'yauzl';
import { ReflError } from '../errors.ts';
import { largestHeader } from './format.ts';

/** Members of an archive: a storage has one each. */
const mostMembers = 200_000;

/** A member of an archive, stored as it is. */
export interface Member {
  readonly name: string;
  /** Where its bytes begin in the archive's file. */
  readonly offset: number;
  readonly bytes: number;
  readonly crc: number;
}

/** A zip archive whose members are read from where they lie in its file. */
export class Archive {
  readonly path: string;
  readonly #zip: ZipFile;
  readonly #reader: Reader;
  readonly #listed = new Map<string, Listed>();

  private constructor(path: string, zip: ZipFile, reader: Reader) {
    this.path = path;
    this.#zip = zip;
    this.#reader = reader;
  }

  /** Lists an archive's members. Throws ERR_WEIGHTS where it is damaged, or holds more than weights do. */
  static async open(path: string, file: FileHandle): Promise<Archive> {
    const reader = new Reader(file);
    const { size } = await file.stat();
    const options = { lazyEntries: true, autoClose: false, strictFileNames: true };
    const zip = await intact(path, reader, () => fromRandomAccessReaderPromise(reader, size, options));
    const archive = new Archive(path, zip, reader);
    await archive.#list();
    return archive;
  }

  async #list(): Promise<void> {
    const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${this.path}: the archive ${why}`);
    if (this.#zip.entryCount > mostMembers) throw bad(`has ${this.#zip.entryCount} members, more than ${mostMembers}`);
    let bytes = 0;
    const entries = this.#zip.eachEntry();
    for (;;) {
      const { done, value } = await intact(this.path, this.#reader, () => entries.next());
      if (done) return;
      bytes += value.fileNameLength + value.extraFieldLength + value.fileCommentLength;
      if (bytes > largestHeader) throw bad(`lists its members in more than ${largestHeader} bytes`);
      if (this.#listed.has(value.fileName)) throw bad(`holds ${value.fileName.slice(0, 200)} twice`);
      this.#listed.set(value.fileName, value);
    }
  }

  get names(): string[] {
    return [...this.#listed.keys()];
  }

  has(name: string): boolean {
    return this.#listed.has(name);
  }

  /** Looks a member up. Throws ERR_WEIGHTS where there is none, and where its bytes are not simply there. */
  async member(name: string): Promise<Member> {
    const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${this.path}: ${why}`);
    const listed = this.#listed.get(name);
    if (!listed) throw bad(`the archive lacks ${name}; it was not written whole`);
    const { compressionMethod, compressedSize, uncompressedSize: bytes, crc32: crc } = listed;
    if (compressionMethod !== 0 || listed.isEncrypted() || compressedSize !== bytes) {
      throw bad(`${name} is compressed or encrypted, as torch.save never does: pack the archive anew by zip -0`);
    }
    const read = () => this.#zip.readLocalFileHeaderPromise(listed, { minimal: true });
    const { fileDataStart: offset } = await intact(this.path, this.#reader, read);
    if (!(offset + bytes <= this.#zip.fileSize)) throw bad(`${name} reaches beyond the end of the file`);
    return { name, offset, bytes, crc };
  }
}

/** Says what yauzl finds wrong with the file's name and what to do. */
async function intact<T>(path: string, reader: Reader, read: () => Promise<T>): Promise<T> {
  try {
    return await Promise.race([read(), reader.failed]);
  } catch (cause) {
    const why = (cause as Error).message;
    throw new ReflError('ERR_WEIGHTS', `${path} is no whole zip archive (${why}): fetch or copy it again`, { cause });
  }
}

/**
 * Reads for yauzl. Its own reader throws on places that no file has, and whatever is thrown while a read is answered ends the
 * process; here both reject what is waited for.
 */
class Reader extends RandomAccessReader {
  readonly #file: FileHandle;
  readonly failed: Promise<never>;
  #fail!: (cause: unknown) => void;

  constructor(file: FileHandle) {
    super();
    this.#file = file;
    this.failed = new Promise((_, reject) => {
      this.#fail = reject;
    });
    this.failed.catch(() => {});
  }

  override read(
    buffer: Buffer,
    offset: number,
    length: number,
    position: number,
    callback: (error: Error | null, bytesRead?: number) => void,
  ): void {
    this.#read(buffer, offset, length, position)
      .then(
        (bytesRead) => callback(null, bytesRead),
        (cause: Error) => callback(cause),
      )
      .catch((cause) => this.#fail(cause));
  }

  async #read(buffer: Buffer, offset: number, length: number, position: number): Promise<number> {
    if (!Number.isSafeInteger(position)) throw new Error('it refers to bytes that no file has');
    return (await this.#file.read(buffer, offset, length, position)).bytesRead;
  }

  /** The file is its owner's. */
  override close(callback: (error: Error | null) => void): void {
    callback(null);
  }
}
