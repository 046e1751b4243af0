// Tables of numbers as NumPy and MATLAB save them. They are small: values are read at once, as float64.
import { ReflError } from '../errors.ts';
import { readBytes, withFile } from './files.ts';
import { readMat } from './mat.ts';
import { isNpz, readNpz } from './npz.ts';
import { openWeights } from './open.ts';
import { readTensor } from './read.ts';
import type { NumberArray } from './table.ts';

/** Bytes of a file of arrays: a limit that keeps a hostile one from exhausting memory. */
const mostBytes = 1 << 30;

/**
 * Reads the arrays of a file by name: NumPy's .npz, MATLAB's .mat (version 5 to 7), or anything that {@link openWeights} opens.
 * What a file is, its content says. Of .npz and .mat files only arrays of real numbers are taken. Throws ERR_FILE, and ERR_WEIGHTS where
 * a file is damaged.
 */
export async function readArrays(path: string): Promise<Map<string, NumberArray>> {
  const bytes = (offset: number, length: number): Promise<Buffer> =>
    withFile(path, (file) => readBytes(file, offset, length));
  const start = await bytes(0, 128);
  const kinds = [
    { is: start.toString('latin1').startsWith('MATLAB 5.0 MAT-file'), read: readMat, what: 'MATLAB' },
    { is: isNpz(start), read: readNpz, what: '.npz' },
  ];
  const kind = kinds.find(({ is }) => is);
  if (kind) {
    try {
      return kind.read(await bytes(0, mostBytes));
    } catch (cause) {
      const why = `it is no whole ${kind.what} file (${(cause as Error).message})`;
      throw new ReflError('ERR_WEIGHTS', `${path}: ${why}: fetch or save it again`, { cause });
    }
  }
  const file = await openWeights(path);
  const arrays = new Map<string, NumberArray>();
  for (const [key, { shape }] of file.entries) {
    arrays.set(key, { shape, values: Float64Array.from(await readTensor(file, key)) });
  }
  return arrays;
}
