import { dirname, join } from 'node:path';
import { ReflError } from '../errors.ts';
import { readBytes, withFile } from './files.ts';
import { type Entry, largestHeader, type WeightsFile } from './format.ts';
import { parseObject } from './json.ts';

/**
 * Opens the shards of an index: JSON whose `weight_map` names the file of each tensor. They lie beside it; `open` opens
 * one. Throws ERR_FILE and ERR_WEIGHTS, for one where a shard lacks a tensor or names lead out of the folder.
 */
export async function openSharded(path: string, open: (path: string) => Promise<WeightsFile>): Promise<WeightsFile> {
  const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${path}: ${why}`);
  const { weight_map: map } = parseObject(await readText(path), path, 'the index');
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw bad('a JSON file of weights holds a weight_map, this one does not');
  }
  const shards = new Map<string, WeightsFile>();
  const entries = new Map<string, Entry>();
  let metadata: Readonly<Record<string, string>> = {};
  for (const [key, name] of Object.entries(map as Record<string, unknown>)) {
    if (typeof name !== 'string' || !/^[^/\\\0]+\.(safetensors|bin|pt|pth)$/.test(name)) {
      throw bad(`${key}: ${JSON.stringify(name)} is no name of a file beside the index`);
    }
    const shard = shards.get(name) ?? (await open(join(dirname(path), name)));
    shards.set(name, shard);
    const entry = shard.entries.get(key);
    if (!entry) throw bad(`${name} lacks ${key}: the shards do not belong together, fetch them again`);
    entries.set(key, entry);
    metadata = { ...shard.metadata, ...metadata };
  }
  return { path, metadata, entries, verify: verifyAll([...shards.values()]) };
}

/** Verifies files one after the other. */
export const verifyAll =
  (files: readonly WeightsFile[]) =>
  async (signal?: AbortSignal): Promise<void> => {
    for (const file of files) await file.verify?.(signal);
  };

function readText(path: string): Promise<string> {
  return withFile(path, async (file) => {
    const { size } = await file.stat();
    if (size > largestHeader) {
      throw new ReflError('ERR_WEIGHTS', `${path}: the index has ${size} bytes, more than ${largestHeader}`);
    }
    return (await readBytes(file, 0, size)).toString();
  });
}
