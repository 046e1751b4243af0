import { type OfficialFile, officialFiles } from '../../lib/bench/official.ts';
import type { Module } from '../../lib/nn/module.ts';
import type { Source } from '../../lib/weights/write.ts';
import { tensorsOf, tinyDiffBIR } from './latent_support.ts';

/** The files of a small restorer; the base holds a table that belongs to no network besides. */
function tinyFiles(name: 'diffbir-v1' | 'osediff-face'): Map<string, OfficialFile> {
  let seed = 0;
  const fill = (module: Module, prefix = ''): Map<string, Source> => tensorsOf(module, ++seed, prefix);
  const files = new Map(officialFiles(name, tinyDiffBIR, fill, 2));
  const table: Source = { dtype: 'F32', shape: [3], data: () => Float32Array.of(1, 2, 3) };
  const [[base, { tensors }]] = files;
  return files.set(base, { tensors: new Map([['alphas_cumprod', table], ...tensors]) });
}

export const diffbirFiles = (): Map<string, OfficialFile> => tinyFiles('diffbir-v1');
export const osediffFiles = (): Map<string, OfficialFile> => tinyFiles('osediff-face');

export { writeOfficial } from '../../lib/bench/official.ts';
