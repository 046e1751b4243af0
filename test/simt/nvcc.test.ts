// timeout: 600 s
// nvcc accepts the kernels' header and every kernel without a warning, for sm_80 and sm_90a: no spills, and none of ptxas's
// C75xx notes, which say that it had to repair or serialise wgmma.
import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { execute, make, pooled } from './build.ts';
import { instructions, kernels } from './kernels.ts';

const found = spawnSync('nvcc', ['--version'], { encoding: 'utf8' });
const release = /release ([\d.]+)/.exec(found.stdout ?? '')?.[1];
if (!release) console.log('skipped: nvcc is not installed');

/** A source that only sm_90a can run says so in its name. */
const targets = (file: string) => (/sm90|hopper/.test(file) ? ['90a'] : ['80', '90a']);

const compile = (file: string, target: string) => [
  ...['-std=c++17', `-gencode=arch=compute_${target},code=sm_${target}`, '--Werror', 'all-warnings', '-fmad=false'],
  ...['-Xptxas', '-v,-warn-spills', '-Icuda', '-c', file],
];

(release ? test : test.skip)('kernels compile clean', async () => {
  const files = [instructions, ...kernels].flatMap((program) => program.kernels);
  const jobs = files.flatMap((file) => targets(file).map((target) => ({ file, target })));
  await pooled(
    jobs.map(({ file, target }) => async () => {
      const to = `build/simt/nvcc/${target}/${file.replaceAll('/', '_')}.o`;
      await make(to, compile(file, target), {
        compiler: 'nvcc',
        rule: `${to}.d`,
        refuse: /C75\d\d|[1-9]\d* bytes spill/,
      });
    }),
  );
});

(release ? test : test.skip)('the notes of ptxas that are refused are the ones it writes', async () => {
  // Planted in hopper.cu: a product without wgmmaFence, and one without wgmmaWait.
  const { stderr } = await execute('nvcc', [
    ...compile('test/simt/kernels/hopper.cu', '90a'),
    ...['-o', 'build/simt/nvcc/hopper.o'],
  ]);
  assert.match(stderr, /C7519/);
  assert.match(stderr, /C7517/);
});

test.run();
