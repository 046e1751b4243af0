import { mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import * as assert from 'uvu/assert';
import type { Module } from '../../lib/nn/module.ts';
import type { WeightsFile } from '../../lib/weights/format.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';

/** What a file shall hold, all of it zero. */
export type Contents = Map<string, { dtype: 'F32' | 'I32'; shape: readonly number[] }>;

/** The parameters of `module` under the names that `rename` gives them; those without a name are left out. */
export function stored(module: Module, rename: (key: string) => string | undefined = (key) => key): Contents {
  const tensors: Contents = new Map();
  for (const [key, { value }] of module.namedParameters()) {
    const name = rename(key);
    if (name) tensors.set(name, { shape: value.shape, dtype: 'F32' });
  }
  return tensors;
}

/**
 * Runs `use` with a function that writes safetensors files and opens them; they are gone afterwards. The files are sparse: a
 * network of any size takes no space.
 */
export async function withFiles(
  use: (write: (contents: Contents) => Promise<WeightsFile>) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), 'refl-metrics-'));
  let count = 0;
  try {
    await use(async (contents) => {
      let end = 0;
      const entries = [...contents].map(([key, { dtype, shape }]) => {
        const start = end;
        end += shape.reduce((a, b) => a * b, 4);
        return [key, { dtype, shape, data_offsets: [start, end] }] as const;
      });
      const header = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
      const length = Buffer.alloc(8);
      length.writeUInt32LE(header.length);
      const path = join(folder, `weights${count++}.safetensors`);
      await writeFile(path, Buffer.concat([length, header]));
      await truncate(path, 8 + header.length + end);
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
