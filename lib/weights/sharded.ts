import { access } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { ReflError } from '../errors.ts';
import { readBytes, withFile } from './files.ts';
import { type Entry, largestHeader, type WeightsFile } from './format.ts';
import { parseObject } from './json.ts';

/**
 * Opens the shards of an index: JSON whose `weight_map` names the file of each tensor. They lie beside it; `open` opens
 * one. Throws ERR_FILE, for one where shards are missing, with all their names, and ERR_WEIGHTS, for one where a shard lacks a
 * tensor or names lead out of the folder.
 */
export async function openSharded(path: string, open: (path: string) => Promise<WeightsFile>): Promise<WeightsFile> {
  const bad = (why: string): ReflError => new ReflError('ERR_WEIGHTS', `${path}: ${why}`);
  const { weight_map: map } = parseObject(await readText(path), path, 'the index');
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw bad('a JSON file of weights holds a weight_map, this one does not');
  }
  const names = new Map<string, string>();
  for (const [key, name] of Object.entries(map as Record<string, unknown>)) {
    if (typeof name !== 'string' || !/^[^/\\\0]+\.(safetensors|bin|pt|pth)$/.test(name)) {
      throw bad(`${key}: ${JSON.stringify(name)} is no name of a file beside the index`);
    }
    names.set(key, name);
  }
  const shards = await openAll(path, [...new Set(names.values())], open);
  const entries = new Map<string, Entry>();
  let metadata: Readonly<Record<string, string>> = {};
  for (const [key, name] of names) {
    const shard = shards.get(name)!;
    const entry = shard.entries.get(key);
    if (!entry) throw bad(`${name} lacks ${key}: the shards do not belong together, fetch them again`);
    entries.set(key, entry);
    metadata = { ...shard.metadata, ...metadata };
  }
  return { path, metadata, entries, verify: verifyAll([...shards.values()]) };
}

/** Opens files beside `path` by their names. What does not exist is told first, and all of it. */
async function openAll(
  path: string,
  names: readonly string[],
  open: (path: string) => Promise<WeightsFile>,
): Promise<Map<string, WeightsFile>> {
  const missing: string[] = [];
  for (const name of names) await access(join(dirname(path), name)).catch(() => missing.push(name));
  if (missing.length) {
    const some = missing.slice(0, mostNamed).join(', ') + (missing.length > mostNamed ? ', ...' : '');
    const which = `${missing.length} of the ${names.length} files that it names are missing: ${some}`;
    throw new ReflError('ERR_FILE', `${path}: ${which}; put them beside it`);
  }
  const shards = new Map<string, WeightsFile>();
  for (const name of names) shards.set(name, await open(join(dirname(path), name)));
  return shards;
}

const mostNamed = 20;

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
