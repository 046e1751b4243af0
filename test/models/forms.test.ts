// The same weights stored under other names and in other layouts: what arrives in a network's parameters is the same, bit for
// bit.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Shape } from '../../lib/graph/tensor.ts';
import { CLIP } from '../../lib/models/clip.ts';
import { toDiffusers, unetModules, vaeModules } from '../../lib/models/diffusers.ts';
import { sd21 } from '../../lib/models/latent.ts';
import { type Part, partOf } from '../../lib/models/parts.ts';
import { UNet } from '../../lib/models/unet.ts';
import { AutoencoderKL } from '../../lib/models/vae.ts';
import { initialize } from '../../lib/nn/init.ts';
import type { Module } from '../../lib/nn/module.ts';
import { type Device, openDevice, type Parameters } from '../../lib/runtime/index.ts';
import { loadWeights } from '../../lib/weights/load.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-forms-'));
let device: Device;
test.before(async () => {
  device = await openDevice('cpu');
});
test.after(() => {
  device.dispose();
  rmSync(folder, { recursive: true });
});

interface Stored {
  shape: Shape;
  data: Float32Array;
}

/** A network's values by their names, all of them random. */
async function valuesOf(module: Module, parameters: Parameters): Promise<Map<string, Stored>> {
  const values = new Map<string, Stored>();
  for (const [key, { value }] of module.namedParameters()) {
    values.set(key, { shape: value.shape, data: (await parameters.read(value)) as Float32Array });
  }
  return values;
}

async function random(module: Module): Promise<Map<string, Stored>> {
  using parameters = device.parameters();
  await initialize(device, parameters, module, 7n);
  const values = await valuesOf(module, parameters);
  // Biases and the like would all be zero.
  let n = 0;
  for (const { data } of values.values()) for (const i of data.keys()) data[i] += Math.sin(++n);
  return values;
}

/** The values of `module`, loaded from a file of `stored` as the part that it is. */
async function loaded(stored: Map<string, Stored>, part: Part, module: Module): Promise<Map<string, Stored>> {
  const path = join(folder, `${part}.safetensors`);
  const sources = [...stored].map(([key, { shape, data }]): [string, Source] => [
    key,
    { dtype: 'F32', shape, data: () => data },
  ]);
  await writeSafetensors(path, new Map(sources.sort(([a], [b]) => (a < b ? -1 : 1))));
  using parameters = device.parameters();
  await loadWeights(parameters, module, partOf(await openWeights(path), part), { frozen: true });
  return await valuesOf(module, parameters);
}

const transposed = ({ shape: [rows, columns], data }: Stored): Stored => ({
  shape: [columns, rows],
  data: Float32Array.from(data, (_, i) => data[(i % rows) * columns + Math.floor(i / rows)]),
});

test("a UNet under diffusers' names", async () => {
  const config = { ...sd21.unet, model_channels: 32, channel_mult: [1, 2], num_res_blocks: 1, num_head_channels: 16 };
  const build = (): UNet => new UNet({ ...config, attention_resolutions: [1], context_dim: 8 });
  const values = await random(build());
  const name = toDiffusers(unetModules({ levels: 2, blocks: 1, attention: [true, false] }));
  const stored = new Map([...values].map(([key, value]) => [name(key)!, value]));
  assert.equal(await loaded(stored, 'unet', build()), values);
});

test("an autoencoder under diffusers' names, its attention made of linear layers", async () => {
  const ddconfig = { ...sd21.vae.ddconfig, ch: 32, ch_mult: [1, 2], num_res_blocks: 1 };
  const build = (): AutoencoderKL => new AutoencoderKL({ embed_dim: 4, ddconfig });
  const values = await random(build());
  const name = toDiffusers(vaeModules({ levels: 2, blocks: 1 }));
  const stored = [...values].map(([key, value]): [string, Stored] => {
    const linear = /attn_1\.(q|k|v|proj_out)\.weight/.test(key);
    return [name(key)!, linear ? { ...value, shape: value.shape.slice(0, 2) } : value];
  });
  assert.equal(await loaded(new Map(stored), 'vae', build()), values);
});

test("CLIP under transformers' names: attention in three parts, projections by columns", async () => {
  const build = (): CLIP =>
    new CLIP({
      embed_dim: 6,
      vision_cfg: { image_size: 8, patch_size: 4, width: 10, layers: 2, head_width: 5 },
      text_cfg: { context_length: 7, vocab_size: 20, width: 8, heads: 2, layers: 3 },
    });
  const values = await random(build());
  const stored = new Map<string, Stored>();
  const whole: [RegExp, string][] = [
    [/^visual\.class_embedding$/, 'vision_model.embeddings.class_embedding'],
    [/^visual\.positional_embedding$/, 'vision_model.embeddings.position_embedding.weight'],
    [/^visual\.conv1/, 'vision_model.embeddings.patch_embedding'],
    [/^visual\.ln_pre/, 'vision_model.pre_layrnorm'],
    [/^visual\.ln_post/, 'vision_model.post_layernorm'],
    [/^positional_embedding$/, 'text_model.embeddings.position_embedding.weight'],
    [/^token_embedding/, 'text_model.embeddings.token_embedding'],
    [/^ln_final/, 'text_model.final_layer_norm'],
    [/^visual\.transformer\.resblocks/, 'vision_model.encoder.layers'],
    [/^transformer\.resblocks/, 'text_model.encoder.layers'],
    [/\.ln_(\d)\./, '.layer_norm$1.'],
    [/\.attn\.out_proj/, '.self_attn.out_proj'],
    [/\.mlp\.c_fc/, '.mlp.fc1'],
    [/\.mlp\.c_proj/, '.mlp.fc2'],
  ];
  for (const [key, value] of values) {
    const name = whole.reduce((path, [from, to]) => path.replace(from, to), key);
    const [, layer, kind] = /^(.*)\.attn\.in_proj_(weight|bias)$/.exec(name) ?? [];
    if (key === 'visual.proj') stored.set('visual_projection.weight', transposed(value));
    else if (key === 'text_projection') stored.set('text_projection.weight', transposed(value));
    else if (kind) {
      const size = value.data.length / 3;
      for (const [i, part] of ['q', 'k', 'v'].entries()) {
        const shape = [value.shape[0] / 3, ...value.shape.slice(1)];
        const data = value.data.slice(i * size, (i + 1) * size);
        stored.set(`${layer}.self_attn.${part}_proj.${kind}`, { shape, data });
      }
    } else stored.set(name, value);
  }
  assert.equal(await loaded(stored, 'clip', build()), values);
});

test.run();
