// Networks under the names that others give them: which ones a file holds, and its tensors under our own names.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { type Shape, sizeOf } from '../../lib/graph/tensor.ts';
import { adaptersOf } from '../../lib/models/adapters.ts';
import { CLIP, type CLIPConfig, TextTransformer, vitH14 } from '../../lib/models/clip.ts';
import { ControlNet } from '../../lib/models/controlnet.ts';
import { fromDiffusers, layoutOf, toDiffusers, unetModules, vaeModules } from '../../lib/models/diffusers.ts';
import { irControlNet, sd21, stage1SwinIR } from '../../lib/models/latent.ts';
import { OSEDiff } from '../../lib/models/osediff.ts';
import { findParts, type Part, partOf } from '../../lib/models/parts.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import { UNet } from '../../lib/models/unet.ts';
import { AutoencoderKL } from '../../lib/models/vae.ts';
import type { Module } from '../../lib/nn/module.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import type { Entry, WeightsFile } from '../../lib/weights/format.ts';
import { loadWeights } from '../../lib/weights/load.ts';

const smallUnet = { ...sd21.unet, model_channels: 32, channel_mult: [1, 2], num_res_blocks: 1, num_head_channels: 16 };
const unet = { ...smallUnet, attention_resolutions: [1], context_dim: 32 };
const ddconfig = { ...sd21.vae.ddconfig, ch: 32, ch_mult: [1, 2, 2], num_res_blocks: 1 };
const clip: CLIPConfig = {
  embed_dim: 6,
  vision_cfg: { image_size: 8, patch_size: 4, width: 10, layers: 2, head_width: 5 },
  text_cfg: { context_length: 7, vocab_size: 20, width: 8, heads: 2, layers: 3 },
};

type Shapes = Map<string, Shape>;

function fileOf(shapes: Shapes, path = 'file'): WeightsFile {
  const entries = new Map<string, Entry>();
  let offset = 0;
  for (const [key, shape] of shapes) {
    const bytes = 4 * sizeOf(shape);
    entries.set(key, { dtype: 'F32', shape, bytes, pieces: [{ path, offset, shape }] });
    offset += bytes;
  }
  return { path, metadata: {}, entries };
}

const shapesOf = (module: Module): Shapes =>
  new Map([...module.namedParameters()].map(([key, { value }]) => [key, value.shape]));

const mapped = (shapes: Shapes, rename: (key: string) => string | undefined): Shapes =>
  new Map([...shapes].map(([key, shape]) => [rename(key) ?? assert.unreachable(key), shape] as [string, Shape]));

const prefixed = (shapes: Shapes, prefix: string): Shapes => mapped(shapes, (key) => prefix + key);

/** The text tower's tensors as transformers stores them. */
function transformersText(shapes: Shapes): Shapes {
  const names: Record<string, string> = {
    positional_embedding: 'text_model.embeddings.position_embedding.weight',
    text_projection: 'text_projection.weight',
    logit_scale: 'logit_scale',
    'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
    'ln_final.weight': 'text_model.final_layer_norm.weight',
    'ln_final.bias': 'text_model.final_layer_norm.bias',
  };
  return new Map([...shapes].flatMap(([key, shape]) => block(key, shape, 'text_model', names)));
}

function transformersVision(shapes: Shapes): Shapes {
  const names: Record<string, string> = {
    class_embedding: 'vision_model.embeddings.class_embedding',
    positional_embedding: 'vision_model.embeddings.position_embedding.weight',
    proj: 'visual_projection.weight',
    'conv1.weight': 'vision_model.embeddings.patch_embedding.weight',
    'ln_pre.weight': 'vision_model.pre_layrnorm.weight',
    'ln_pre.bias': 'vision_model.pre_layrnorm.bias',
    'ln_post.weight': 'vision_model.post_layernorm.weight',
    'ln_post.bias': 'vision_model.post_layernorm.bias',
  };
  return new Map([...shapes].flatMap(([key, shape]) => block(key, shape, 'vision_model', names)));
}

function block(key: string, shape: Shape, tower: string, names: Record<string, string>): [string, Shape][] {
  if (key in names) return [[names[key], names[key].endsWith('rojection.weight') ? shape.toReversed() : shape]];
  const [, i, inner] = /^transformer\.resblocks\.(\d+)\.(.*)$/.exec(key)!;
  const layer = `${tower}.encoder.layers.${i}`;
  const [, kind] = /^attn\.in_proj_(weight|bias)$/.exec(inner) ?? [];
  if (kind)
    return ['q', 'k', 'v'].map((p) => [`${layer}.self_attn.${p}_proj.${kind}`, [shape[0] / 3, ...shape.slice(1)]]);
  const path = inner
    .replace('ln_', 'layer_norm')
    .replace('attn.', 'self_attn.')
    .replace('c_fc', 'fc1')
    .replace('c_proj', 'fc2');
  return [[`${layer}.${path}`, shape]];
}

const squares = (shapes: Shapes): Shapes =>
  new Map([...shapes].map(([key, s]) => [key, /attentions.*\.to_.*weight/.test(key) ? s.slice(0, 2) : s]));

const unetShapes = shapesOf(new UNet(unet));
const vaeShapes = shapesOf(new AutoencoderKL({ embed_dim: 4, ddconfig }));
const clipShapes = shapesOf(new CLIP(clip));
const textShapes = new Map([...clipShapes].filter(([key]) => !key.startsWith('visual.')));
const visionShapes = mapped(new Map([...clipShapes].filter(([key]) => !textShapes.has(key))), (key) => key.slice(7));
const unetNames = unetModules({ levels: 2, blocks: 1, attention: [true, false] });
const vaeNames = vaeModules({ levels: 3, blocks: 1 });
const inDiffusers = {
  unet: mapped(unetShapes, toDiffusers(unetNames)),
  vae: squares(mapped(vaeShapes, toDiffusers(vaeNames))),
  text: transformersText(textShapes),
};

/** Says what of `part` in the file is not as the class has it. */
function compare(file: WeightsFile, part: Part, shapes: Shapes): void {
  const found = [...partOf(file, part).entries].map(([key, { shape }]) => `${key} [${shape}]`);
  assert.equal(found.sort(), [...shapes].map(([key, shape]) => `${key} [${shape}]`).sort());
}

test('every key has one name in diffusers, and the way back is the same', () => {
  for (const [shapes, names] of [
    [unetShapes, unetNames],
    [vaeShapes, vaeNames],
  ] as const) {
    const there = mapped(shapes, toDiffusers(names));
    assert.is(there.size, shapes.size);
    assert.equal([...mapped(there, fromDiffusers(names)).keys()], [...shapes.keys()]);
  }
  assert.equal(layoutOf(inDiffusers.unet.keys()), { levels: 2, blocks: 1, attention: [true, false] });
  assert.is(toDiffusers(unetNames)('input_blocks.9.0.in_layers.0.weight'), undefined);
  assert.is(
    fromDiffusers(unetNames)('conv_in.lora_A.default_encoder.weight'),
    'input_blocks.0.0.lora_A.default_encoder.weight',
  );
});

test('parts are found in a checkpoint of all, under original names', () => {
  const file = fileOf(
    new Map([
      ['betas', [1000]],
      ['model_ema.decay', []],
      ...prefixed(unetShapes, 'model.diffusion_model.'),
      ...prefixed(vaeShapes, 'first_stage_model.'),
      ...prefixed(textShapes, 'cond_stage_model.model.'),
    ]),
  );
  assert.equal(
    findParts(file).map(({ part, naming, prefix }) => `${part} ${naming} ${prefix}`),
    [
      'unet original model.diffusion_model.',
      'vae original first_stage_model.',
      'text open_clip cond_stage_model.model.',
    ],
  );
  compare(file, 'unet', unetShapes);
  compare(file, 'vae', vaeShapes);
  compare(file, 'text', textShapes);
});

test('parts are found in a folder of diffusers, whose names and shapes are others', () => {
  const file = fileOf(
    new Map([
      ...prefixed(inDiffusers.unet, 'unet.'),
      ...prefixed(inDiffusers.vae, 'vae.'),
      ...prefixed(inDiffusers.text, 'text_encoder.'),
    ]),
  );
  assert.equal(
    findParts(file).map(({ part, naming }) => `${part} ${naming}`),
    ['unet diffusers', 'vae diffusers', 'text transformers'],
  );
  compare(file, 'unet', unetShapes);
  compare(file, 'vae', vaeShapes);
  compare(file, 'text', textShapes);
});

test('an autoencoder under the older names of its attention', () => {
  const old: Record<string, string> = { to_q: 'query', to_k: 'key', to_v: 'value', 'to_out.0': 'proj_attn' };
  const older = mapped(inDiffusers.vae, (key) => key.replace(/to_(q|k|v|out\.0)/, (name) => old[name]));
  compare(fileOf(older), 'vae', vaeShapes);
});

test('both towers of CLIP, under either name', () => {
  compare(fileOf(clipShapes), 'clip', clipShapes);
  compare(fileOf(clipShapes), 'text', textShapes);
  const other = fileOf(new Map([...transformersText(textShapes), ...transformersVision(visionShapes)]));
  compare(other, 'clip', clipShapes);
  assert.equal(
    findParts(other).map(({ part }) => part),
    ['clip'],
  );
});

test('query, key and value are read in this order, and a projection by its columns', () => {
  const { entries } = partOf(fileOf(inDiffusers.text), 'text');
  const places = entries.get('transformer.resblocks.1.attn.in_proj_weight')!.pieces.map(({ offset }) => offset);
  const stored = fileOf(inDiffusers.text).entries;
  const layer = 'text_model.encoder.layers.1.self_attn';
  assert.equal(
    places,
    ['q', 'k', 'v'].map((name) => stored.get(`${layer}.${name}_proj.weight`)!.pieces[0].offset),
  );
  const [{ shape, strides }] = entries.get('text_projection')!.pieces;
  assert.equal(
    [shape, strides],
    [
      [8, 6],
      [1, 8],
    ],
  );
});

test("OSEDiff's adapters bear the names of a network that was made for them", () => {
  const model = new OSEDiff({ unet, vae: { embed_dim: 4, ddconfig }, text: clip }, { unet: 3, vae: 2 });
  const adapted = (module: Module): Shapes =>
    new Map([...shapesOf(module)].filter(([key]) => /\.lora_[AB]\.|^input_blocks\.0\.0\./.test(key)));
  const linear = (shapes: Shapes): Shapes =>
    new Map([...shapes].map(([key, s]) => [key, /attentions.*\.to_.*lora/.test(key) ? s.slice(0, 2) : s]));
  const [ownUnet, ownVae] = [adapted(model.unet), adapted(model.vae)];
  const shapes = new Map([
    ...prefixed(mapped(ownUnet, toDiffusers(unetNames)), 'state_dict_unet.'),
    ...prefixed(linear(mapped(ownVae, toDiffusers(vaeNames))), 'state_dict_vae.'),
  ]);
  const file = { ...fileOf(shapes), metadata: { rank_unet: '3', rank_vae: '2' } };
  assert.equal(findParts(file), [{ part: 'adapters', naming: 'diffusers', prefix: '' }]);
  const adapters = adaptersOf(file);
  assert.equal(adapters.ranks, { unet: 3, vae: 2 });
  for (const [found, expected] of [
    [adapters.unet, ownUnet],
    [adapters.vae, ownVae],
  ] as const) {
    assert.ok(expected.size > 20);
    assert.equal(new Map([...found.entries].map(([key, { shape }]) => [key, shape])), expected);
  }
  assert.throws(() => adaptersOf({ ...file, metadata: { rank_unet: '3' } }), /its rank_vae is undefined/);
  assert.throws(() => adaptersOf(fileOf(unetShapes)), /no file of OSEDiff: it lacks state_dict_unet/);
});

test('a file of something else is refused with what it is', () => {
  const fails = (file: WeightsFile, part: Part): string => {
    try {
      partOf(file, part);
    } catch (error) {
      assert.is((error as { code: string }).code, 'ERR_WEIGHTS');
      return (error as Error).message;
    }
    throw new Error('nothing was thrown');
  };
  assert.is(
    fails(fileOf(textShapes, 'a.pt'), 'unet'),
    "a.pt does not hold Stable Diffusion's UNet: it holds CLIP's text encoder",
  );
  assert.match(fails(fileOf(unetShapes), 'controlnet'), /it holds Stable Diffusion's UNet$/);
  const swinir = shapesOf(new SwinIR({ ...stage1SwinIR, embed_dim: 12, depths: [2], num_heads: [2] }));
  assert.match(fails(fileOf(swinir), 'clip'), /it holds SwinIR$/);
  compare(fileOf(prefixed(swinir, 'model.')), 'swinir', swinir);
  assert.match(
    fails(fileOf(new Map([['head.weight', [1]]])), 'vae'),
    /1 tensors of no network .* such as head\.weight$/,
  );
});

test('a network of which half is missing is found, and what it lacks is counted', async () => {
  const half = new Map([...unetShapes].filter((_, i) => i % 2));
  using device = await openDevice('null');
  using parameters = device.parameters();
  try {
    await loadWeights(parameters, new UNet(unet), partOf(fileOf(half, 'half.pt'), 'unet'));
  } catch (error) {
    const lacks = unetShapes.size - half.size;
    assert.match(
      (error as Error).message,
      new RegExp(
        `^half\\.pt does not fit the model: ${lacks} of ${unetShapes.size} tensors are missing, 0 are wrong:\n`,
      ),
    );
    return;
  }
  assert.unreachable();
});

const folder = fileURLToPath(new URL('../../../shared/golden/keys/', import.meta.url));
const whereThere = existsSync(folder) ? test : test.skip;
const readJson = (name: string) => JSON.parse(gunzipSync(readFileSync(`${folder}${name}.json.gz`)).toString());

whereThere('the published networks are found at full size under their published names', () => {
  const published: [string, Part, () => Module][] = [
    ['sd21_unet', 'unet', () => new UNet(sd21.unet)],
    ['sd21_vae', 'vae', () => new AutoencoderKL(sd21.vae)],
    ['sd21_openclip_text', 'text', () => new TextTransformer(vitH14)],
    ['diffbir_controlnet', 'controlnet', () => new ControlNet(irControlNet)],
    ['hpsv2_vit_h_14', 'clip', () => new CLIP(vitH14)],
    ['swinir_face_stage1', 'swinir', () => new SwinIR(stage1SwinIR)],
  ];
  for (const [name, part, build] of published) {
    const keys: Record<string, { shape: number[]; buffer?: boolean }> = readJson(name).keys;
    const stored = Object.entries(keys).filter(([, { buffer }]) => !buffer);
    const file = fileOf(new Map(stored.map(([key, { shape }]) => [key, shape])));
    assert.equal(
      findParts(file).map((found) => found.part),
      [part],
    );
    compare(file, part, shapesOf(build()));
  }
});

whereThere("diffusers' names at full size are those of the official conversion", () => {
  const { unet: unetPairs, vae: vaePairs } = readJson('diffusers_names') as Record<string, Record<string, string>>;
  const layout = layoutOf(Object.values(unetPairs));
  assert.equal(layout, { levels: 4, blocks: 2, attention: [true, true, true, false] });
  const there = toDiffusers(unetModules(layout));
  const back = fromDiffusers(unetModules(layout));
  for (const [original, diffusers] of Object.entries(unetPairs)) {
    const own = original.replace('model.diffusion_model.', '');
    assert.is(there(own), diffusers);
    assert.is(back(diffusers), own);
  }
  const vaeBack = fromDiffusers(vaeModules({ levels: 4, blocks: 2 }));
  for (const [original, diffusers] of Object.entries(vaePairs)) {
    assert.is(vaeBack(diffusers), original.replace('first_stage_model.', ''));
  }
});

test.run();
