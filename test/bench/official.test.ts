// The files that the benches of restorers write hold the published networks at full size, under names that are found again.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { officialFiles } from '../../lib/bench/official.ts';
import { adaptersOf } from '../../lib/models/adapters.ts';
import { ControlLDM, diffbir } from '../../lib/models/diffbir.ts';
import { OSEDiff } from '../../lib/models/osediff.ts';
import { type Part, partOf } from '../../lib/models/parts.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import type { Module } from '../../lib/nn/module.ts';
import type { WeightsFile } from '../../lib/weights/format.ts';
import type { Source } from '../../lib/weights/write.ts';

/** Tensors of the right shapes, whose values nobody asks for. */
const fill = (module: Module, prefix = ''): Map<string, Source> =>
  new Map(
    [...module.namedParameters()].map(([key, { value }]) => [
      prefix + key,
      { dtype: 'F32', shape: value.shape, data: () => new Float32Array() },
    ]),
  );

function files(name: 'diffbir-v1' | 'osediff-face'): Map<string, WeightsFile> {
  const all = [...officialFiles(name, diffbir, fill)].map(([path, { tensors, metadata = {} }]) => {
    const entries = new Map(
      [...tensors].map(([key, { shape }]) => [key, { dtype: 'F32' as const, shape, bytes: 0, pieces: [] }]),
    );
    return [path, { path, metadata, entries }] as const;
  });
  return new Map(all);
}

const shapesOf = (found: WeightsFile): string[] =>
  [...found.entries].map(([key, { shape }]) => `${key} ${shape}`).sort();
const wanted = (module: Module, only = /./): string[] =>
  [...module.namedParameters()]
    .filter(([key]) => only.test(key))
    .map(([key, { value }]) => `${key} ${value.shape}`)
    .sort();

test('DiffBIR', () => {
  const model = new ControlLDM(diffbir);
  const found = files('diffbir-v1');
  const parts: [string, Part, Module][] = [
    ['v2-1_512-ema-pruned.ckpt', 'unet', model.unet],
    ['v2-1_512-ema-pruned.ckpt', 'vae', model.vae],
    ['v2-1_512-ema-pruned.ckpt', 'text', model.clip.model],
    ['v1_face.pth', 'controlnet', model.controlnet],
    ['face_swinir_v1.ckpt', 'swinir', new SwinIR(diffbir.stage1)],
  ];
  for (const [file, part, module] of parts)
    assert.equal(shapesOf(partOf(found.get(file)!, part)), wanted(module), part);
  assert.is(found.get('v2-1_512-ema-pruned.ckpt')!.entries.size, 686 + 248 + 294);
});

test("OSEDiff's adapters", () => {
  const file = files('osediff-face').get('osediff_face.pkl')!;
  assert.is(file.entries.size, 516 + 64 + 2);
  assert.ok(file.entries.has('state_dict_unet.conv_in.base_layer.weight'));
  const { unet, vae, ranks } = adaptersOf(file);
  assert.equal(ranks, { unet: 4, vae: 4 });
  const model = new OSEDiff(diffbir, ranks);
  assert.equal(shapesOf(unet), wanted(model.unet, /\.lora_|^input_blocks\.0\.0\./));
  assert.equal(shapesOf(vae), wanted(model.vae, /\.lora_/));
});

test.run();
