import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { CLIP, TextTransformer, vitH14 } from '../../lib/models/clip.ts';
import { ControlNet } from '../../lib/models/controlnet.ts';
import { irControlNet, sd21, stage1SwinIR } from '../../lib/models/latent.ts';
import { addUnetLora, addVaeLora } from '../../lib/models/lora.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import { UNet } from '../../lib/models/unet.ts';
import { AutoencoderKL } from '../../lib/models/vae.ts';
import type { Module } from '../../lib/nn/module.ts';

const published: { file: string; prefix: string; tensors: number; parameters: number; build: () => Module }[] = [
  {
    file: 'sd21_unet',
    prefix: 'model.diffusion_model.',
    tensors: 686,
    parameters: 865_910_724,
    build: () => new UNet(sd21.unet),
  },
  {
    file: 'diffbir_controlnet',
    prefix: '',
    tensors: 324,
    parameters: 363_153_280,
    build: () => new ControlNet(irControlNet),
  },
  {
    file: 'sd21_vae',
    prefix: 'first_stage_model.',
    tensors: 248,
    parameters: 83_653_863,
    build: () => new AutoencoderKL(sd21.vae),
  },
  {
    file: 'swinir_face_stage1',
    prefix: '',
    tensors: 732,
    parameters: 15_792_587,
    build: () => new SwinIR(stage1SwinIR),
  },
  {
    file: 'sd21_openclip_text',
    prefix: 'cond_stage_model.model.',
    tensors: 294,
    parameters: 354_032_641,
    build: () => new TextTransformer(vitH14),
  },
  {
    file: 'hpsv2_vit_h_14',
    prefix: '',
    tensors: 686,
    parameters: 986_109_441,
    build: () => new CLIP(vitH14),
  },
];

const folder = fileURLToPath(new URL('../../../shared/golden/keys/', import.meta.url));
const whereThere = existsSync(folder) ? test : test.skip;

const readJson = (name: string) => JSON.parse(gunzipSync(readFileSync(`${folder}${name}.json.gz`)).toString());

for (const { file, prefix, tensors, parameters, build } of published) {
  test(`${file} has ${tensors} tensors and ${parameters} parameters`, () => {
    const module = build();
    assert.is(module.parameterCount, parameters);
    assert.is(module.namedParameters().size + module.namedBuffers().size, tensors);
  });

  whereThere(`${file} has the official names and shapes`, () => {
    const module = build();
    const stored: Record<string, { shape: number[]; buffer?: boolean }> = readJson(file).keys;
    const expected = Object.entries(stored).map(
      ([key, { shape, buffer }]) => `${key} [${shape}]${buffer ? ' buffer' : ''}`,
    );
    const own = [...module.namedParameters()].map(([key, { value }]) => `${prefix}${key} [${value.shape}]`);
    const buffers = [...module.namedBuffers()].map(([key, { shape }]) => `${prefix}${key} [${shape}] buffer`);
    assert.equal([...own, ...buffers].sort(), expected.sort());
  });
}

/** Parameters of all adapters. */
function adapterSizes(module: Module): { tensors: number; values: number } {
  const adapters = [...module.namedParameters()].filter(([key]) => key.includes('.lora_'));
  return { tensors: adapters.length, values: adapters.reduce((sum, [, { value }]) => sum + value.size, 0) };
}

test('OSEDiff adapts 258 modules of the UNet and 32 of the VAE', () => {
  const unet = new UNet(sd21.unet);
  const adapted = addUnetLora(unet, { rank: 4 });
  const counts = Object.fromEntries(Object.entries(adapted).map(([adapter, paths]) => [adapter, paths.length]));
  assert.equal(counts, { default_encoder: 94, default_decoder: 148, default_others: 16 });
  assert.equal(adapterSizes(unet), { tensors: 516, values: 4_055_712 });
  assert.ok(unet.namedParameters().has('input_blocks.1.0.in_layers.2.base_layer.weight'));
  assert.ok(unet.namedParameters().has('out.2.lora_B.default_decoder.weight'));

  const vae = new AutoencoderKL(sd21.vae);
  assert.is(addVaeLora(vae, { rank: 4 }).length, 32);
  assert.equal(adapterSizes(vae), { tensors: 64, values: 369_356 });
});

whereThere('OSEDiff adapts the modules that its code lists', () => {
  const names = readJson('diffusers_names');
  const diffusers = (adapted: string[], pairs: Record<string, string>, prefix: string): string[] =>
    adapted.map((path) => pairs[`${prefix}${path}.weight`].replace(/\.weight$/, '')).sort();
  const adapted = addUnetLora(new UNet(sd21.unet), { rank: 4 });
  for (const [adapter, paths] of Object.entries(adapted)) {
    assert.equal(diffusers(paths, names.unet, 'model.diffusion_model.'), [...names.osediff_lora[adapter]].sort());
  }
  const inVae = addVaeLora(new AutoencoderKL(sd21.vae), { rank: 4 });
  // The pair table gives these attention layers their older diffusers names.
  const current: Record<string, string> = { query: 'to_q', key: 'to_k', value: 'to_v', proj_attn: 'to_out.0' };
  const renamed = diffusers(inVae, names.vae, 'first_stage_model.').map((name) =>
    name.replace(/[^.]+$/, (last) => current[last] ?? last),
  );
  assert.equal(renamed.sort(), [...names.osediff_lora.vae_default_encoder].sort());
});

test.run();
