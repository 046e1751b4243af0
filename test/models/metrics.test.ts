// The networks of metrics at full size, under the names of their published files.
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { AestheticPredictor, vitL14Visual } from '../../lib/models/aesthetic.ts';
import { ResNetFace } from '../../lib/models/arcface.ts';
import { VisionTransformer } from '../../lib/models/clip.ts';
import { ClipResNet } from '../../lib/models/clip_resnet.ts';
import { FAN } from '../../lib/models/fan.ts';
import { InceptionV3 } from '../../lib/models/inception.ts';
import { MANIQA } from '../../lib/models/maniqa.ts';
import { MUSIQ } from '../../lib/models/musiq.ts';
import type { Module } from '../../lib/nn/module.ts';

const published: { manifest: string; parameters: number; build: () => Module; prefix?: string; aside?: RegExp }[] = [
  {
    manifest: 'openai_clip_vit_l_14_visual',
    parameters: 303_966_208,
    build: () => new VisionTransformer(vitL14Visual),
    prefix: 'visual.',
  },
  { manifest: 'laion_aesthetic_mlp', parameters: 927_969, build: () => new AestheticPredictor() },
  // Without the positions of the attention pool.
  {
    manifest: 'openai_clip_rn50',
    parameters: 102_007_137 - 50 * 2048,
    build: () => new ClipResNet(),
    aside: /^visual\.attnpool\.positional_embedding$/,
  },
  { manifest: 'arcface_resnet_face18', parameters: 25_627_081, build: () => new ResNetFace() },
  { manifest: 'awing_fan_4hg_98', parameters: 24_153_036, build: () => new FAN() },
  { manifest: 'musiq_koniq', parameters: 27_125_825, build: () => new MUSIQ() },
  // Without the end of its vision transformer, and without halvings that are never made.
  {
    manifest: 'maniqa',
    parameters: 135_747_530 - 14_946_280 - 6_636_672,
    build: () => new MANIQA(),
    aside: /^(vit\.(blocks\.1[01]|norm|head)|swintransformer[12]\.downsample)\./,
  },
  // The classifier, of 1008 classes, is not built.
  {
    manifest: 'fid_inception_v3',
    parameters: 23_850_960 - 1008 * 2049,
    build: () => new InceptionV3(),
    aside: /^fc\./,
  },
];

const folder = fileURLToPath(new URL('../../../shared/golden/full/manifests/', import.meta.url));
const whereThere = existsSync(folder) ? test : test.skip;

for (const { manifest, parameters, build, prefix = '', aside } of published) {
  test(`${manifest} has ${parameters} parameters`, () => {
    const module = build();
    const statistics = [...module.namedParameters()].filter(([key]) => /\.running_(mean|var)$/.test(key));
    const counted = module.parameterCount - statistics.reduce((sum, [, { value }]) => sum + value.size, 0);
    assert.is(counted, parameters);
  });

  whereThere(`${manifest} has the official names and shapes`, () => {
    const module = build();
    const text = gunzipSync(readFileSync(`${folder}${manifest}.json.gz`)).toString();
    const stored: Record<string, [shape: number[]]> = JSON.parse(text).keys;
    const expected = Object.entries(stored).filter(([key]) => !aside?.test(key));
    const own = [...module.namedParameters()].map(([key, { value }]) => `${prefix}${key} [${value.shape}]`);
    const buffers = [...module.namedBuffers()].map(([key, { shape }]) => `${prefix}${key} [${shape}]`);
    assert.equal([...own, ...buffers].sort(), expected.map(([key, [shape]]) => `${key} [${shape}]`).sort());
  });
}

test.run();
