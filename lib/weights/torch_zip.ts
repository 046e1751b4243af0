import type { FileHandle } from 'node:fs/promises';
import { crc32 } from 'node:zlib';
import { ReflError } from '../errors.ts';
import { Archive, type Member } from './archive.ts';
import { readBytes, readChunks, withFile } from './files.ts';
import type { WeightsFile } from './format.ts';
import { largestPickle, readPickle } from './pickle.ts';
import { weightsOf } from './torch.ts';
import { torchGlobals, torchStorage } from './torch_names.ts';

/**
 * Reads what a zip archive of torch.save, or of TorchScript, says of its tensors. Its members are stored plainly, so values are
 * then read from where they lie. Throws ERR_FILE, and ERR_WEIGHTS where the archive or its pickle is damaged or asks for
 * what weights do not need. The pickle's checksum is checked; those of the values are where they are verified, once.
 */
export function openTorchZip(path: string): Promise<WeightsFile> {
  return withFile(path, async (opened) => {
    const archive = await Archive.open(path, opened);
    const root = rootOf(archive);
    await checkByteOrder(archive, root, opened);
    const data = await readPickled(path, opened, await archive.member(`${root}data.pkl`));
    const where = `${path}: data.pkl`;
    const persistent = (id: unknown) => torchStorage(id, where);
    const { value } = readPickle(data, 0, { where, global: torchGlobals(where), persistent });
    const storages: Member[] = [];
    const file = await weightsOf(path, value, async (key) => {
      const member = await archive.member(`${root}data/${key}`);
      storages.push(member);
      return member;
    });
    let verified: Promise<void> | undefined;
    const verifyOnce = (signal?: AbortSignal): Promise<void> => {
      verified ??= verify(path, storages, signal).catch((error) => {
        verified = undefined;
        throw error;
      });
      return verified;
    };
    return { ...file, verify: verifyOnce };
  });
}

/** The folder inside the archive that all its members are in. */
function rootOf({ path, names }: Archive): string {
  const pickles = names.filter((name) => /^([^/]*\/)?data\.pkl$/.test(name));
  if (pickles.length === 1) return pickles[0].slice(0, -'data.pkl'.length);
  const why = `a zip archive of weights holds one data.pkl, this one ${pickles.length}`;
  throw new ReflError('ERR_WEIGHTS', `${path}: ${why}`);
}

async function checkByteOrder(archive: Archive, root: string, opened: FileHandle): Promise<void> {
  if (!archive.has(`${root}byteorder`)) return;
  const { offset, bytes } = await archive.member(`${root}byteorder`);
  const order = (await readBytes(opened, offset, Math.min(bytes, 16))).toString('latin1');
  if (order === 'little') return;
  throw new ReflError('ERR_WEIGHTS', `${archive.path}: its byte order is ${JSON.stringify(order)}, not little`);
}

async function readPickled(path: string, opened: FileHandle, { offset, bytes, crc }: Member): Promise<Buffer> {
  if (bytes > largestPickle) {
    throw new ReflError('ERR_WEIGHTS', `${path}: data.pkl has ${bytes} bytes, more than ${largestPickle}`);
  }
  const data = await readBytes(opened, offset, bytes);
  if (data.length < bytes) throw new ReflError('ERR_WEIGHTS', `${path}: the file ended while data.pkl was read`);
  if (crc32(data) !== crc) throw wrongSum(path, 'data.pkl');
  return data;
}

async function verify(path: string, storages: readonly Member[], signal?: AbortSignal): Promise<void> {
  for (const { name, offset, bytes, crc } of storages) {
    let sum = 0;
    for await (const chunk of readChunks(path, offset, bytes)) {
      signal?.throwIfAborted();
      sum = crc32(chunk, sum);
    }
    if (sum !== crc) throw wrongSum(path, name);
  }
}

const wrongSum = (path: string, name: string): ReflError =>
  new ReflError('ERR_WEIGHTS', `${path}: ${name} does not have the archive's checksum: fetch or copy the file again`);
