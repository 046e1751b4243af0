import type { WeightsFile } from './format.ts';

/** A file as if its tensors had other names: `rename` gives each its new one, or nothing for those that are left out. */
export function renamed(file: WeightsFile, rename: (key: string) => string | undefined): WeightsFile {
  const entries = new Map(
    [...file.entries].flatMap(([key, entry]) => {
      const name = rename(key);
      return name === undefined ? [] : [[name, entry] as const];
    }),
  );
  return { ...file, entries };
}
