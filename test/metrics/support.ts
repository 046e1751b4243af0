import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Module } from '../../lib/nn/module.ts';
import { openSafetensors, type SafetensorsFile } from '../../lib/weights/safetensors.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';

/** The parameters of `module` under the names that `rename` gives them, all zero; those without a name are left out. */
export function stored(
  module: Module,
  rename: (key: string) => string | undefined = (key) => key,
): Map<string, Source> {
  const tensors = new Map<string, Source>();
  for (const [key, { value }] of module.namedParameters()) {
    const name = rename(key);
    if (name) tensors.set(name, { shape: value.shape, dtype: 'F32', data: () => new Float32Array(value.size) });
  }
  return tensors;
}

/** Runs `use` with a function that writes safetensors files and opens them; they are gone afterwards. */
export async function withFiles(
  use: (write: (tensors: Map<string, Source>) => Promise<SafetensorsFile>) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'refl-metrics-'));
  let count = 0;
  try {
    await use(async (tensors) => {
      const path = join(folder, `weights${count++}.safetensors`);
      await writeSafetensors(path, tensors, {});
      return openSafetensors(path);
    });
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Asserts that `action` rejects with this code and a message like this. */
export async function rejects(action: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  const error = await action.then(
    () => assert.unreachable(`nothing failed, expected ${code}`),
    (e) => e,
  );
  assert.is(error.code, code, error.message);
  assert.match(error.message, message);
}
