import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CLIP, type CLIPConfig } from '../../lib/models/clip.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { random } from '../support/random.ts';

/** A CLIP for squares of 8, with a vocabulary of all bytes, three merges and two borders. */
export const tinyClip: CLIPConfig = {
  embed_dim: 6,
  vision_cfg: { image_size: 8, patch_size: 4, width: 8, layers: 1, head_width: 4 },
  text_cfg: { context_length: 9, vocab_size: 517, width: 8, heads: 2, layers: 1 },
};

export function writeTokenizer(folder: string): string {
  const path = join(folder, 'merges.txt');
  writeFileSync(path, '#version: 0.2\nl o\nlo w</w>\ne r</w>\n');
  return path;
}

/** Writes a {@link tinyClip} with fixed random weights, of which `change` may alter or leave out (undefined) some. */
export async function writeTinyClip(
  path: string,
  change: (key: string, values: Float32Array) => Float32Array | undefined = (_, values) => values,
  config: object = tinyClip,
): Promise<string> {
  const { next } = random(11);
  const tensors = new Map<string, Source>();
  for (const [key, { value, init }] of new CLIP(tinyClip).namedParameters()) {
    const around = init === 'ones' ? 1 : 0;
    const values = change(
      key,
      Float32Array.from({ length: value.size }, () => around + (2 * next() - 1) / 2),
    );
    if (values) tensors.set(key, { dtype: 'F32', shape: value.shape, data: () => values });
  }
  await writeSafetensors(path, tensors, { config: JSON.stringify(config) });
  return path;
}
