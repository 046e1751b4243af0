// timeout: 600 s
// Official networks at full size. REFL_FULL=1 adds those of 350 million parameters and more, which take up to 6 GB each.
import { existsSync, readFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { crc32 } from 'node:zlib';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openDevice } from '../../lib/runtime/index.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { fillByFormula, hash, type Manifest } from './formula.ts';
import { runParity } from './suites.ts';

const folder = fileURLToPath(new URL('../../../shared/golden/full/', import.meta.url));
const whereThere = existsSync(folder) ? test : test.skip;
const small = [
  'fan_full',
  'clipiqa_full',
  'arcface_full',
  'inception_full',
  'inception_full_gain15',
  'musiq_full',
  'lpips_vgg_full',
  'lpips_vgg_full_gain15',
  'lpips_vgg_full_gain15_grad',
  'swinir_full',
  'vae_full',
  'vae_full_grad',
];
const large = [
  'aesthetic_full',
  'maniqa_full',
  'clip_text_full',
  'hps_full',
  'hps_full_grad',
  'unet_full',
  'unet_full_grad',
];

async function parity(path: string): Promise<{ passed: number; failures: string[] }> {
  const lines: string[] = [];
  using device = await openDevice('cpu');
  const { passed } = await runParity(device, [path], (line) => lines.push(line));
  return { passed, failures: lines.filter((line) => line.startsWith('FAIL')) };
}

for (const name of process.env.REFL_FULL === '1' ? [...small, ...large] : small) {
  whereThere(`${name} agrees with PyTorch`, async () => {
    const { passed, failures } = await parity(join(folder, `${name}.safetensors`));
    assert.equal(failures, []);
    assert.ok(passed > 2, `only ${passed} numbers were compared`);
  });
}

interface Sample {
  key: string;
  shape: number[];
  rule: string;
  crc32: number;
  j: number[];
  x: number[];
  value_f32: number[];
}

whereThere('weights by formula are the published samples', () => {
  const samples: Sample[] = JSON.parse(readFileSync(join(folder, 'sample_values.json'), 'utf8'));
  for (const { key, shape, rule, j, x, value_f32, ...sample } of samples) {
    assert.is(crc32(key), sample.crc32);
    assert.equal(
      j.map((at) => hash(sample.crc32, at)),
      x,
      key,
    );
    const values = new Float32Array(Math.max(...j) + 1);
    const manifest: Manifest = { [key]: [shape, rule] };
    fillByFormula(values, manifest, key);
    assert.equal(
      j.map((at) => values[at]),
      value_f32.map(Math.fround),
      key,
    );
  }
});

whereThere('one number off by more than its limit fails, and so does another gain', async () => {
  const temporary = await mkdtemp(join(tmpdir(), 'refl-full-'));
  try {
    const original = await openSafetensors(join(folder, 'lpips_vgg_full.safetensors'));
    const changed = async (name: string, change: (key: string, data: Float32Array) => void, more = {}) => {
      const tensors = new Map<string, Source>();
      for (const [key, { shape, dtype }] of original.entries) {
        const data = await readTensor(original, key);
        if (data instanceof Float32Array) change(key, data);
        tensors.set(key, { shape, dtype: dtype as 'F32', data: () => data });
      }
      const path = join(temporary, `${name}.safetensors`);
      await writeSafetensors(path, tensors, { ...original.metadata, ...more });
      return (await parity(path)).failures;
    };
    const one = await changed('lpips_vgg_full_number', (key, data) => {
      if (key === 'out.feat_in0.3.sub') data[11] += 1e-3;
    });
    assert.is(one.length, 1);
    assert.match(one[0], /feat_in0\.3 /);
    assert.ok((await changed('lpips_vgg_full_gain', () => {}, { matrix_gain: '1.01' })).length > 10);
  } finally {
    await rm(temporary, { recursive: true });
  }
});

test.run();
