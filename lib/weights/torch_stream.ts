import type { FileHandle } from 'node:fs/promises';
import { ReflError } from '../errors.ts';
import { readBytes, withFile } from './files.ts';
import { fileTypes, type WeightsFile } from './format.ts';
import { largestPickle, type PickleContext, PickleEnded, readPickle } from './pickle.ts';
import { weightsOf } from './torch.ts';
import { type TorchStorage, torchGlobals, torchStorage } from './torch_names.ts';

const magic = 0x1950a86a20f9469cfc6cn;
const version = 1001;
const mostStorages = 200_000;

/** What stands before the values: all of it pickles, one after the other. */
interface Head {
  readonly root: unknown;
  readonly storages: ReadonlyMap<string, TorchStorage>;
  /** The keys in the order of their values. */
  readonly keys: readonly string[];
  readonly end: number;
}

/**
 * Reads what a file of torch.save before PyTorch 1.6 (or with `_use_new_zipfile_serialization=False`) says of its tensors:
 * five pickles, then each storage's values behind their number. Throws ERR_FILE, and ERR_WEIGHTS where the file is damaged,
 * was made on a big-endian machine or asks for what weights do not need.
 */
export function openTorchStream(path: string): Promise<WeightsFile> {
  return withFile(path, async (file) => {
    const { size } = await file.stat();
    const head = await readHead(path, file);
    const places = await placesOf(path, file, size, head);
    return weightsOf(path, head.root, async (key) => {
      const place = places.get(key);
      if (!place) throw new ReflError('ERR_WEIGHTS', `${path}: the file lacks the storage ${key.slice(0, 200)}`);
      return place;
    });
  });
}

/** Nothing says how long the pickles are, so more is read until they end. */
async function readHead(path: string, file: FileHandle): Promise<Head> {
  for (let length = 1 << 20; length <= largestPickle; length *= 4) {
    const bytes = await readBytes(file, 0, length);
    try {
      return parseHead(path, bytes);
    } catch (error) {
      if (!(error instanceof PickleEnded) || bytes.length < length) throw error;
    }
  }
  throw new ReflError('ERR_WEIGHTS', `${path}: its pickles have more than ${largestPickle} bytes`);
}

function parseHead(path: string, bytes: Buffer): Head {
  const storages = new Map<string, TorchStorage>();
  const context: PickleContext = {
    where: path,
    global: torchGlobals(path),
    persistent: (id) => {
      const storage = torchStorage(id, path);
      const known = storages.get(storage.key);
      if (known && known.dtype !== storage.dtype) {
        throw new ReflError('ERR_WEIGHTS', `${path}: the storage ${storage.key} has two types`);
      }
      storages.set(storage.key, storage);
      return storage;
    },
  };
  let end = 0;
  const next = (): unknown => {
    const read = readPickle(bytes, end, context);
    end = read.end;
    return read.value;
  };
  if (next() !== magic) {
    const remedy = 'save it again by torch.save(model.state_dict(), FILE)';
    throw new ReflError('ERR_WEIGHTS', `${path} is a pickle, but none of torch.save: ${remedy}`);
  }
  const protocol = next();
  if (protocol !== version) throw new ReflError('ERR_WEIGHTS', `${path}: the format's version ${protocol} is unknown`);
  const system = next();
  if (!(system instanceof Map && system.get('little_endian') === true)) {
    throw new ReflError('ERR_WEIGHTS', `${path}: it was not made on a little-endian machine`);
  }
  const root = next();
  const keys = next();
  const named = Array.isArray(keys) && keys.length <= mostStorages && keys.every((key) => typeof key === 'string');
  if (!named || new Set(keys).size < keys.length)
    throw new ReflError('ERR_WEIGHTS', `${path}: the list of its storages is damaged`);
  return { root, storages, keys, end };
}

/** Where each storage's values lie; those that no tensor names have no known size, and end the reading. */
async function placesOf(
  path: string,
  file: FileHandle,
  size: number,
  { storages, keys, end }: Head,
): Promise<Map<string, { offset: number; bytes: number }>> {
  const places = new Map<string, { offset: number; bytes: number }>();
  let at = end;
  for (const key of keys) {
    const storage = storages.get(key);
    const count = await readBytes(file, at, 8);
    const bytes = count.length === 8 && storage ? Number(count.readBigInt64LE()) * fileTypes[storage.dtype] : -1;
    if (bytes < 0 || at + 8 + bytes > size) {
      const short = key.slice(0, 200);
      throw new ReflError('ERR_WEIGHTS', `${path}: the values of the storage ${short} are cut short or damaged`);
    }
    places.set(key, { offset: at + 8, bytes });
    at += 8 + bytes;
  }
  return places;
}
