// timeout: 600 s
// nvcc accepts the kernels' header and every kernel without a warning, for sm_80 and sm_90a: no spills, and none of ptxas's
// C75xx notes, which say that it had to repair or serialise wgmma.
import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { execute, pooled } from './build.ts';
import { instructions, kernels } from './kernels.ts';
import { compile, nvccArguments, resources, targets } from './nvcc.ts';

const found = spawnSync('nvcc', ['--version'], { encoding: 'utf8' });
const release = /release ([\d.]+)/.exec(found.stdout ?? '')?.[1];
if (!release) console.log('skipped: nvcc is not installed');

(release ? test : test.skip)('kernels compile clean', async () => {
  const files = [instructions, ...kernels].flatMap((program) => program.kernels);
  const made = await pooled(files.map((file) => () => compile(file)));
  made.forEach((path, i) => {
    const chips = new Set(resources(path).map(({ target }) => target));
    assert.equal(
      [...chips].sort(),
      targets(files[i]).map((target) => `sm_${target}`),
      files[i],
    );
  });
});

(release ? test : test.skip)('the notes of ptxas that are refused are the ones it writes', async () => {
  // Planted in hopper.cu: a product without wgmmaFence, and one without wgmmaWait.
  const { stderr } = await execute('nvcc', [
    ...nvccArguments('test/simt/kernels/hopper.cu'),
    ...['-o', 'build/simt/nvcc/hopper.fatbin'],
  ]);
  assert.match(stderr, /C7519/);
  assert.match(stderr, /C7517/);
});

(release ? test : test.skip)('the report names each kernel with its registers', async () => {
  const found = resources(await compile('test/simt/kernels/instructions.cu'));
  const transpose = found.find((it) => it.kernel.includes('transposeKernel'));
  assert.ok(transpose && transpose.registers > 0 && transpose.registers < 256 && transpose.spilled === 0);
  assert.ok(found.length >= 9);
});

test.run();
