// timeout: 600 s
// Every instruction that cuda/simt offers does what its manual says, in every build and under shuffled schedules.
import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { build, run, variants } from './build.ts';
import { instructions } from './kernels.ts';

for (const variant of variants) {
  test(`${variant}: the wrappers`, async () => {
    const path = await build(instructions, variant);
    for (const schedule of [0, 1, 2]) {
      const { code, cases, stderr } = await run(path, ['--schedule', `${schedule}`, '--threads', `${schedule + 1}`]);
      const bad = cases.filter((it) => !it.ok).map((it) => `${it.case}: ${it.problem}`);
      assert.is(code, 0, `schedule ${schedule}: ${bad.join('; ')}\n${stderr}`);
      assert.ok(cases.length >= 10);
    }
  });
}

const header = '#include "simt/simt.h"\n';
const compile = (body: string) =>
  spawnSync('g++', ['-std=c++17', '-Icuda', '-x', 'c++', '-c', '-o', '/dev/null', '-'], {
    input: header + body,
    encoding: 'utf8',
  });

test('what the emulator does not know does not compile', () => {
  assert.is(compile('__global__ void k(int* x) { x[threadIdx.x] = __popc(3); }').status, 0);
  for (const body of [
    '__global__ void k() { __shared__ int x[32]; }',
    '__global__ void k(int* x) { asm volatile("mov.u32 %0, %laneid;" : "=r"(*x)); }',
    '__global__ void k(unsigned* x) { *x = __activemask(); }',
    '__global__ void k(long* x) { *x = clock64(); }',
    '__global__ void k() { simt::cpAsync<3>(nullptr, nullptr); }',
    '__global__ void k(float* d) { simt::mma<float>(d, d, d); }',
  ])
    assert.is.not(compile(body).status, 0, body);
});

test.run();
