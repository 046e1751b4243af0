import { createHash } from 'node:crypto';
import { readBytes, withFile } from './files.ts';
import { fileTypes, type WeightsFile } from './format.ts';

/** Bytes that are read in one place of a tensor. */
const block = 1024;

/**
 * Tells weights from others without reading gigabytes: SHA-256 of every tensor's name, type and shape, and of the first, the
 * middle and the last {@link block} bytes of its values. Training changes all tensors throughout, so other weights of the same
 * network differ there. It does not see values that were changed in between, as by hand; nor metadata, nor where
 * the file lies. The same values as another type count as other weights. Throws ERR_FILE.
 */
export async function sampledDigest({ entries }: WeightsFile): Promise<string> {
  const hash = createHash('sha256');
  for (const [key, { dtype, shape, pieces }] of [...entries].sort(([a], [b]) => (a < b ? -1 : 1))) {
    hash.update(JSON.stringify([key, dtype, shape]));
    for (const { path, offset, shape: extents } of pieces) {
      const bytes = extents.reduce((product, extent) => product * extent, fileTypes[dtype]);
      const last = Math.max(0, bytes - block);
      await withFile(path, async (file) => {
        for (const at of new Set([0, Math.floor(last / 2), last])) {
          hash.update(await readBytes(file, offset + at, Math.min(block, bytes - at)));
        }
      });
    }
  }
  return hash.digest('hex');
}
