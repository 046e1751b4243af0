import { crc32 } from 'node:zlib';
import { type Entry as Member, openPromise, type ZipFile } from 'yauzl';
import { ReflError } from '../errors.ts';
import { readBytes, readChunks, withFile } from './files.ts';
import { largestHeader, type WeightsFile } from './format.ts';
import { readPickle } from './pickle.ts';
import { weightsOf } from './torch.ts';
import { torchGlobals, torchStorage } from './torch_names.ts';

/** Members of an archive: a storage has one each. */
const mostMembers = 200_000;

/**
 * Reads what a zip archive of torch.save, or of TorchScript, says of its tensors. Its members are stored plainly, so values are
 * then read from where they lie. Throws ERR_FILE, and ERR_WEIGHTS where the archive or its pickle is damaged or asks for
 * what weights do not need. The pickle's checksum is checked, those of the values are not: that would read them all.
 */
export async function openTorchZip(path: string): Promise<WeightsFile> {
  const zip = await intact(path, openPromise(path, { lazyEntries: true, autoClose: false, strictFileNames: true }));
  try {
    const members = await listMembers(path, zip);
    const root = rootOf(path, members);
    const place = async (name: string) => {
      const member = members.get(`${root}${name}`);
      if (!member) throw new ReflError('ERR_WEIGHTS', `${path}: the archive lacks ${name}; it was not written whole`);
      return { offset: await dataOf(path, zip, member), bytes: member.uncompressedSize };
    };
    await checkByteOrder(path, members, root, place);
    const data = await readPickled(path, members.get(`${root}data.pkl`)!, await place('data.pkl'));
    const where = `${path}: data.pkl`;
    const persistent = (id: unknown) => torchStorage(id, where);
    const { value } = readPickle(data, 0, { where, global: torchGlobals(where), persistent });
    const stored: Stored[] = [];
    const file = await weightsOf(path, value, async (key) => {
      const name = `data/${key}`;
      const found = await place(name);
      stored.push({ ...found, name, crc: members.get(`${root}${name}`)!.crc32 });
      return found;
    });
    return { ...file, verify: (signal) => verify(path, stored, signal) };
  } finally {
    zip.close();
  }
}

/** What yauzl finds wrong is said with the file's name and what to do. */
async function intact<T>(path: string, promise: Promise<T>): Promise<T> {
  try {
    return await promise;
  } catch (cause) {
    const why = (cause as Error).message;
    throw new ReflError('ERR_WEIGHTS', `${path} is no whole zip archive (${why}): fetch or copy it again`, { cause });
  }
}

async function listMembers(path: string, zip: ZipFile): Promise<Map<string, Member>> {
  if (zip.entryCount > mostMembers) {
    throw new ReflError('ERR_WEIGHTS', `${path}: the archive has ${zip.entryCount} members, more than ${mostMembers}`);
  }
  const members = new Map<string, Member>();
  let bytes = 0;
  const entries = zip.eachEntry();
  for (;;) {
    const { done, value } = await intact(path, entries.next());
    if (done) return members;
    bytes += value.fileNameLength + value.extraFieldLength + value.fileCommentLength;
    if (bytes > largestHeader) {
      throw new ReflError(
        'ERR_WEIGHTS',
        `${path}: the list of the archive's members is larger than ${largestHeader} bytes`,
      );
    }
    if (members.has(value.fileName)) {
      throw new ReflError('ERR_WEIGHTS', `${path}: the archive holds ${value.fileName} twice`);
    }
    members.set(value.fileName, value);
  }
}

/** The folder inside the archive that all its members are in. */
function rootOf(path: string, members: ReadonlyMap<string, Member>): string {
  const pickles = [...members.keys()].filter((name) => /^([^/]*\/)?data\.pkl$/.test(name));
  if (pickles.length === 1) return pickles[0].slice(0, -'data.pkl'.length);
  throw new ReflError(
    'ERR_WEIGHTS',
    `${path}: a zip archive of weights holds one data.pkl, this one ${pickles.length}`,
  );
}

/** Where a member's bytes begin. */
async function dataOf(path: string, zip: ZipFile, member: Member): Promise<number> {
  const name = member.fileName;
  if (member.compressionMethod !== 0 || member.isEncrypted() || member.compressedSize !== member.uncompressedSize) {
    const remedy = 'unpack it and pack it again without compression (zip -0)';
    throw new ReflError(
      'ERR_WEIGHTS',
      `${path}: ${name} is compressed or encrypted, as torch.save never does: ${remedy}`,
    );
  }
  const { fileDataStart } = await intact(path, zip.readLocalFileHeaderPromise(member, { minimal: true }));
  if (fileDataStart + member.uncompressedSize > zip.fileSize) {
    throw new ReflError('ERR_WEIGHTS', `${path}: ${name} reaches beyond the end of the file`);
  }
  return fileDataStart;
}

interface Place {
  readonly offset: number;
  readonly bytes: number;
}

/** A storage's member. */
interface Stored extends Place {
  readonly name: string;
  readonly crc: number;
}

async function verify(path: string, stored: readonly Stored[], signal?: AbortSignal): Promise<void> {
  for (const { name, offset, bytes, crc } of stored) {
    let sum = 0;
    for await (const chunk of readChunks(path, offset, bytes)) {
      signal?.throwIfAborted();
      sum = crc32(chunk, sum);
    }
    if (sum !== crc) {
      throw new ReflError('ERR_WEIGHTS', `${path}: ${name} does not have the archive's checksum: fetch the file again`);
    }
  }
}

async function checkByteOrder(
  path: string,
  members: ReadonlyMap<string, Member>,
  root: string,
  place: (name: string) => Promise<Place>,
): Promise<void> {
  if (!members.has(`${root}byteorder`)) return;
  const { offset, bytes } = await place('byteorder');
  const order = await withFile(path, (file) => readBytes(file, offset, Math.min(bytes, 16)));
  if (order.toString() !== 'little') {
    throw new ReflError('ERR_WEIGHTS', `${path}: its byte order is ${JSON.stringify(order.toString())}, not little`);
  }
}

async function readPickled(path: string, member: Member, { offset, bytes }: Place): Promise<Buffer> {
  if (bytes > largestHeader) {
    throw new ReflError('ERR_WEIGHTS', `${path}: data.pkl has ${bytes} bytes, more than ${largestHeader}`);
  }
  const data = await withFile(path, (file) => readBytes(file, offset, bytes));
  if (data.length < bytes) throw new ReflError('ERR_WEIGHTS', `${path}: the file ended while data.pkl was read`);
  if (crc32(data) !== member.crc32) {
    throw new ReflError('ERR_WEIGHTS', `${path}: data.pkl does not have the archive's checksum: fetch the file again`);
  }
  return data;
}
