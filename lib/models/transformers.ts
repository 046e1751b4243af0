// CLIP under the names of transformers, which diffusers' text encoders have, as the tensors that open_clip stores.
import { concatenated, transposed } from '../weights/entries.ts';
import type { Entry } from '../weights/format.ts';

/** One module or parameter of a tower: its path there, and here. */
const textNames: readonly (readonly [RegExp, string])[] = [
  [/^text_model\.embeddings\.token_embedding\./, 'token_embedding.'],
  [/^text_model\.embeddings\.position_embedding\.weight$/, 'positional_embedding'],
  [/^text_model\.encoder\.layers\.(\d+)\./, 'transformer.resblocks.$1.'],
  [/^text_model\.final_layer_norm\./, 'ln_final.'],
  [/^logit_scale$/, 'logit_scale'],
];

const visionNames: readonly (readonly [RegExp, string])[] = [
  [/^vision_model\.embeddings\.class_embedding$/, 'visual.class_embedding'],
  [/^vision_model\.embeddings\.patch_embedding\./, 'visual.conv1.'],
  [/^vision_model\.embeddings\.position_embedding\.weight$/, 'visual.positional_embedding'],
  // Misspelt there.
  [/^vision_model\.pre_layrnorm\./, 'visual.ln_pre.'],
  [/^vision_model\.encoder\.layers\.(\d+)\./, 'visual.transformer.resblocks.$1.'],
  [/^vision_model\.post_layernorm\./, 'visual.ln_post.'],
];

/** Matrices that one stores as linear layers and the other as factors from the right. */
const projections: Readonly<Record<string, string>> = {
  'text_projection.weight': 'text_projection',
  'visual_projection.weight': 'visual.proj',
};

const blockNames: readonly (readonly [RegExp, string])[] = [
  [/\.layer_norm1\./, '.ln_1.'],
  [/\.layer_norm2\./, '.ln_2.'],
  [/\.self_attn\.out_proj\./, '.attn.out_proj.'],
  [/\.mlp\.fc1\./, '.mlp.c_fc.'],
  [/\.mlp\.fc2\./, '.mlp.c_proj.'],
];

/** Of query, key and value, which are stored apart there and in one matrix here. */
const attentionPart = /^(.*)\.self_attn\.([qkv])_proj\.(weight|bias)$/;

/**
 * Tensors of a text or image tower, or both, by their names in open_clip. Tables of positions, which hold no weights, are left
 * out; names that are none of CLIP's stay as they are.
 */
export function fromTransformers(entries: ReadonlyMap<string, Entry>): Map<string, Entry> {
  const found = new Map<string, Entry>();
  for (const [key, entry] of entries) {
    if (key.endsWith('.position_ids')) continue;
    const [, block, part, kind] = attentionPart.exec(key) ?? [];
    if (Object.hasOwn(projections, key)) {
      found.set(projections[key], transposed(entry));
    } else if (block === undefined) {
      found.set(renamedPath(key), entry);
    } else if (part === 'q') {
      const parts = ['q', 'k', 'v'].map((name) => entries.get(`${block}.self_attn.${name}_proj.${kind}`));
      // Where one is missing, all of them are: loading says so by the name of the whole.
      if (parts.every((other) => other !== undefined)) {
        found.set(`${renamedPath(`${block}.`)}attn.in_proj_${kind}`, concatenated(parts));
      }
    }
  }
  return found;
}

function renamedPath(key: string): string {
  const outer = [...textNames, ...visionNames].find(([pattern]) => pattern.test(key));
  if (!outer) return key;
  const path = key.replace(...outer);
  const inner = blockNames.find(([pattern]) => pattern.test(path));
  return inner ? path.replace(...inner) : path;
}
