import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openDevice } from '../../lib/runtime/index.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';
import { runParity } from './suites.ts';

const folder = fileURLToPath(new URL('../../../shared/golden/', import.meta.url));
const whereThere = existsSync(folder) ? test : test.skip;

const files = [
  'ops',
  'unet_tiny',
  'controlnet_tiny',
  'vae_tiny',
  'swinir_tiny',
  'lora_tiny',
  'clip_text_tiny',
  'clip_vision_tiny',
  'clip_hps_tiny',
  'lpips_vgg_tiny',
  'color_fix',
  'degradation',
  'dtcwt',
  'metrics',
  'pipeline_tiny',
  'schedule',
  'ddim_refl',
  'svm',
  'hps_preprocess',
  'resize224_512x512',
  'resize224_300x260',
];

whereThere('a file of weights alone is said to be one, and is no failure', async () => {
  const { lines, passed, failures } = await parity([join(folder, 'lpips_lin_vgg_v01.safetensors')]);
  assert.equal([passed, failures], [0, []]);
  assert.match(lines[0], /^none lpips_lin_vgg_v01.* holds weights \(LPIPS's linear layers\) and no reference numbers/);
});

async function parity(paths: string[]): Promise<{ lines: string[]; passed: number; failures: string[] }> {
  const lines: string[] = [];
  using device = await openDevice('cpu');
  const { passed, failed } = await runParity(device, paths, (line) => lines.push(line));
  const failures = lines.filter((line) => line.startsWith('FAIL'));
  assert.is(failures.length, failed);
  return { lines, passed, failures };
}

for (const name of files) {
  whereThere(`${name} agrees with PyTorch`, async () => {
    const path = join(folder, `${name}.safetensors`);
    const { passed, failures } = await parity([path]);
    assert.equal(failures, []);
    const stored = [...(await openSafetensors(path)).entries.keys()].filter((key) => /^(out|grad)\./.test(key));
    assert.ok(passed >= stored.length, `only ${passed} of ${stored.length} tensors were compared`);
  });
}

whereThere('a wrong number, a missing output and an unknown name fail', async () => {
  const temporary = await mkdtemp(join(tmpdir(), 'refl-parity-'));
  try {
    const original = await openSafetensors(join(folder, 'lora_tiny.safetensors'));
    const tensors = new Map<string, Source>();
    for (const [key, { shape, dtype }] of original.entries) {
      const data = await readTensor(original, key);
      if (key === 'out.y') data[7] += 1e-3;
      tensors.set(key === 'out.conv' ? 'out.other' : key, { shape, dtype: dtype as 'F32', data: () => data });
    }
    const changed = join(temporary, 'lora_changed.safetensors');
    await writeSafetensors(changed, tensors, original.metadata);
    const { failures } = await parity([changed]);
    assert.ok(failures.some((line) => line.includes('out.y ')));
    assert.ok(failures.some((line) => line.includes('out.other')));

    const unknown = join(temporary, 'nothing.safetensors');
    await writeSafetensors(unknown, tensors, original.metadata);
    assert.match((await parity([unknown])).failures[0], /names no known module/);
    const empty = join(temporary, 'lora_empty.safetensors');
    await writeSafetensors(empty, new Map([...tensors].filter(([key]) => !/^(out|grad)/.test(key))), original.metadata);
    assert.is((await parity([empty])).failures.length, 1);
    const truncated = join(temporary, 'unet_truncated.safetensors');
    await writeFile(truncated, 'x');
    assert.match((await parity([truncated])).failures[0], /no safetensors file/);
  } finally {
    await rm(temporary, { recursive: true });
  }
});

test.run();
