import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { ReflError } from '../errors.ts';
import type { Device } from '../runtime/index.ts';

/** Where a run's state after `step` steps lies in its folder. */
export const checkpointPath = (folder: string, step: number): string =>
  join(folder, `step-${String(step).padStart(8, '0')}.safetensors`);

/** The states in a folder, oldest first. */
const checkpoints = async (folder: string): Promise<string[]> =>
  existsSync(folder) ? (await readdir(folder)).filter((name) => /^step-\d{8}\.safetensors$/.test(name)).sort() : [];

export async function newestCheckpoint(folder: string): Promise<string | undefined> {
  const newest = (await checkpoints(folder)).at(-1);
  return newest && join(folder, newest);
}

/** Removes all but the newest two. */
export async function pruneCheckpoints(folder: string): Promise<void> {
  for (const old of (await checkpoints(folder)).slice(0, -2)) await rm(join(folder, old));
}

/** Removes what a process that was killed had not finished writing into a folder whose lock is held. */
export async function removeUnfinished(folder: string): Promise<void> {
  for (const name of await readdir(folder)) {
    if (/^\..*\.tmp$/.test(name)) await rm(join(folder, name), { force: true });
  }
}

/** What a checkpoint must say of its run beside the step: what decides the numbers that follow. */
export interface RunKey {
  /** Options and data, as text. */
  readonly options: string;
  readonly threads: string;
}

export const runKey = (options: object, device: Device): RunKey => ({
  options: JSON.stringify(options),
  threads: String(device.threads),
});

/**
 * Throws ERR_CHECKPOINT, with a list of what differs, where a checkpoint belongs to another run than `key` describes.
 *
 * @param override go on all the same: the list is returned instead. Left out where a run has no such option.
 */
export function checkResumable(
  path: string,
  metadata: Readonly<Record<string, string>>,
  key: RunKey,
  override?: boolean,
): string[] {
  if (metadata.options === undefined) throw new ReflError('ERR_CHECKPOINT', `${path} is no state of a run`);
  const [before, now] = [metadata, key].map(({ options, threads }) => entries({ ...JSON.parse(options), threads }));
  const said = (value: string | undefined): string => value ?? 'none';
  const differing = [...new Set([...before.keys(), ...now.keys()])]
    .filter((name) => before.get(name) !== now.get(name))
    .map((name) => `${name}: ${said(before.get(name))}, now ${said(now.get(name))}`);
  if (differing.length && !override) {
    const ways = ['give the same', 'another folder', ...(override === undefined ? [] : ['override them'])];
    throw new ReflError(
      'ERR_CHECKPOINT',
      `${path} was trained with others (${differing.join('; ')}): ${ways.slice(0, -1).join(', ')} or ${ways.at(-1)}`,
    );
  }
  return differing;
}

/** What an object of options holds, as JSON by path. */
function entries(value: object, prefix = ''): Map<string, string> {
  return new Map(
    Object.entries(value).flatMap(([name, inner]) => {
      const isGroup = typeof inner === 'object' && inner !== null && !Array.isArray(inner);
      return isGroup ? [...entries(inner, `${prefix}${name}.`)] : [[prefix + name, JSON.stringify(inner)] as const];
    }),
  );
}
