// timeout: 600 s
// Whole networks, forward and gradients, by the CUDA backend over the emulator, against PyTorch's numbers.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openDevice } from '../../lib/runtime/index.ts';
import { runParity } from '../parity/suites.ts';
import { buildLibrary } from '../simt/build.ts';

const folder = fileURLToPath(new URL('../../../shared/golden/', import.meta.url));
const whereThere = existsSync(folder) ? test : test.skip;

for (const name of [
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
  'hps_preprocess',
  'resize224_512x512',
  'resize224_300x260',
  'color_fix',
  'dtcwt',
  'pipeline_tiny',
]) {
  whereThere(`${name} on emu:0 agrees with PyTorch`, async () => {
    process.env.REFL_EMU_LIB = await buildLibrary();
    using device = await openDevice('emu:0');
    const lines: string[] = [];
    const { passed } = await runParity(device, [`${folder}${name}.safetensors`], (line) => lines.push(line));
    assert.equal(
      lines.filter((line) => line.startsWith('FAIL')),
      [],
    );
    assert.ok(passed > 2, `only ${passed} tensors were compared`);
  });
}

test.run();
