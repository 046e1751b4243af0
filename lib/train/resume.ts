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

/** Throws ERR_CHECKPOINT where a checkpoint belongs to another run than `key` describes. */
export function checkResumable(path: string, metadata: Readonly<Record<string, string>>, key: RunKey): void {
  if (metadata.options !== key.options) {
    throw new ReflError(
      'ERR_CHECKPOINT',
      `${path} was trained with ${metadata.options}, not ${key.options}: give the same, or another folder`,
    );
  }
  if (metadata.threads !== key.threads) {
    throw new ReflError(
      'ERR_CHECKPOINT',
      `${path} was trained with ${metadata.threads} threads, the device has ${key.threads}: another count gives other bits`,
    );
  }
}
