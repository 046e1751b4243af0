import type { SafetensorsFile } from './safetensors.ts';

/** A file as if its tensors had other names: `rename` gives each its new one, or nothing for those that are left out. */
export function renamed(file: SafetensorsFile, rename: (key: string) => string | undefined): SafetensorsFile {
  const entries = new Map(
    [...file.entries].flatMap(([key, entry]) => {
      const name = rename(key);
      return name === undefined ? [] : [[name, entry] as const];
    }),
  );
  return { ...file, entries };
}
