import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { CLIP, type CLIPConfig } from '../../lib/models/clip.ts';
import type { WeightsFile } from '../../lib/weights/format.ts';
import { readTensor } from '../../lib/weights/read.ts';
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

/** Names of transformers for what a {@link tinyClip} calls otherwise, in the order in which they are tried. */
const transformersNames: readonly (readonly [RegExp, string])[] = [
  [/^visual\.(class_embedding)$/, 'vision_model.embeddings.$1'],
  [/^visual\.positional_embedding$/, 'vision_model.embeddings.position_embedding.weight'],
  [/^visual\.conv1\./, 'vision_model.embeddings.patch_embedding.'],
  [/^visual\.ln_pre\./, 'vision_model.pre_layrnorm.'],
  [/^visual\.ln_post\./, 'vision_model.post_layernorm.'],
  [/^visual\.proj$/, 'visual_projection.weight'],
  [/^text_projection$/, 'text_projection.weight'],
  [/^positional_embedding$/, 'text_model.embeddings.position_embedding.weight'],
  [/^token_embedding\./, 'text_model.embeddings.token_embedding.'],
  [/^ln_final\./, 'text_model.final_layer_norm.'],
  [/^visual\.transformer\.resblocks\./, 'vision_model.encoder.layers.'],
  [/^transformer\.resblocks\./, 'text_model.encoder.layers.'],
];
const insideBlocks: readonly (readonly [string, string])[] = [
  ['.ln_', '.layer_norm'],
  ['.attn.', '.self_attn.'],
  ['.mlp.c_fc.', '.mlp.fc1.'],
  ['.mlp.c_proj.', '.mlp.fc2.'],
];

/** Writes what `file` holds as transformers has it: query, key and value apart, projections by their columns. */
export async function writeTransformers(path: string, file: WeightsFile): Promise<void> {
  const tensors = new Map<string, Source>();
  const add = (key: string, shape: readonly number[], values: Float32Array): void => {
    tensors.set(key, { dtype: 'F32', shape, data: () => values });
  };
  for (const [key, { shape }] of file.entries) {
    const values = (await readTensor(file, key)) as Float32Array;
    const [pattern, by] = transformersNames.find(([pattern]) => pattern.test(key)) ?? [/$/, ''];
    const name = insideBlocks.reduce((path, [from, to]) => path.replace(from, to), key.replace(pattern, by));
    const third = values.length / 3;
    if (/proj(ection)?$/.test(key)) {
      const [rows, columns] = shape;
      const turned = values.map((_, i) => values[(i % rows) * columns + Math.floor(i / rows)]);
      add(name, [columns, rows], turned);
    } else if (name.includes('.in_proj_')) {
      for (const [i, part] of ['q', 'k', 'v'].entries()) {
        const own = values.subarray(i * third, (i + 1) * third);
        add(name.replace('in_proj_', `${part}_proj.`), [shape[0] / 3, ...shape.slice(1)], own);
      }
    } else add(name, shape, values);
  }
  await writeSafetensors(path, tensors, file.metadata);
}
