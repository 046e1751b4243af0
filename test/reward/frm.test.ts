import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CLIP, type CLIPConfig, vitH14 } from '../../lib/models/clip.ts';
import { unlock } from '../../lib/reward/frm.ts';

const small: CLIPConfig = {
  embed_dim: 4,
  vision_cfg: { image_size: 4, patch_size: 2, width: 4, layers: 3, head_width: 2 },
  text_cfg: { context_length: 5, vocab_size: 12, width: 4, heads: 2, layers: 2 },
};

/** Keys that train, with the parameters of a block under the block's name. */
function trained(clip: CLIP): string[] {
  const keys = [...clip.namedParameters()].flatMap(([key, { trainable }]) => (trainable ? [key] : []));
  return [...new Set(keys.map((key) => key.replace(/(resblocks\.\d+)\..*/, '$1')))].sort();
}

test('at full size 514,793,729 parameters train, in the blocks from 13 on', () => {
  const clip = new CLIP(vitH14);
  assert.is(unlock(clip), 514_793_729);
  const blocks = (prefix: string, to: number): string[] =>
    Array.from({ length: to - 12 }, (_, i) => `${prefix}transformer.resblocks.${13 + i}`);
  const rest = ['ln_final.bias', 'ln_final.weight', 'logit_scale', 'text_projection'];
  const image = ['visual.ln_post.bias', 'visual.ln_post.weight', 'visual.proj'];
  assert.equal(trained(clip), [...blocks('', 23), ...blocks('visual.', 31), ...rest, ...image].sort());
});

test('groups are counted from the projection back', () => {
  const clip = new CLIP(small);
  const text = ['ln_final.bias', 'ln_final.weight', 'logit_scale', 'text_projection'];
  const image = ['visual.ln_post.bias', 'visual.ln_post.weight', 'visual.transformer.resblocks.2'];
  const expected: Record<number, string[]> = {
    0: [],
    1: ['visual.proj'],
    2: [...image, 'visual.proj'],
    3: [...image, 'visual.proj', 'visual.transformer.resblocks.1'],
  };
  for (const [imageGroups, keys] of Object.entries(expected)) {
    unlock(clip, { imageGroups: Number(imageGroups), textLayers: 0 });
    assert.equal(trained(clip), [...text, ...keys].sort());
  }
  unlock(clip, { imageGroups: 5, textLayers: 1 });
  assert.not.ok(clip.token_embedding.weight.trainable || clip.positional_embedding.trainable);
  assert.ok(clip.visual.conv1.weight.trainable && clip.visual.class_embedding.trainable);
  assert.ok(trained(clip).includes('transformer.resblocks.1') && !trained(clip).includes('transformer.resblocks.0'));
});

test('counts outside of the model are refused', () => {
  const clip = new CLIP(small);
  assert.throws(() => unlock(clip, { imageGroups: 6, textLayers: 0 }), /imageGroups must be .* 0 to 5, got 6/);
  assert.throws(() => unlock(clip, { imageGroups: 1, textLayers: 2.5 }), /textLayers must be .* 0 to 2, got 2\.5/);
});

test.run();
