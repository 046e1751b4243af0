// timeout: 1500 s
// Each kernel's tests see that a barrier, wait or bounds check is gone. Which mutations are tried changes from day to day;
// REFL_MUTANTS=all tries all of them (with REFL_MUTANTS=all node --import tsx test/run.ts simt/mutants).
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { kernels } from './kernels.ts';
import { tryMutations, writtenOut } from './mutants.ts';
import { mutate } from './mutate.ts';

const everything = process.env.REFL_MUTANTS === 'all';
const aDay = 4;
const today = Math.floor(Date.now() / 86_400_000);

test('mutations are found where they are, and nowhere else', () => {
  const { source, mutations } = mutate(`#include "simt/simt.h"
// __syncthreads(); a < b
__global__ void k(int n) {
  if (n < 3 && threadIdx.x >= 2) __syncthreads();
  cpAsyncWait<0>();
  for (int i = min(n, 5); i < n; ++i) f<int>(i);
  if constexpr (kSize < 4) f<long>(n == 2 ? n : 3);
  if (n > min(n, 7)) barSync(1, n < 9 ? 32 : 64);
}
void host(int n) { if (n < 3) cpAsyncWait<0>(); }
`);
  assert.equal(
    mutations.map((it) => `${it.line}: ${it.change}`).sort(),
    [
      '4: n <= 3',
      '4: true for n < 3',
      '4: threadIdx.x > 2',
      '4: true for threadIdx.x >= 2',
      '4: without __syncthreads()',
      '5: cpAsyncWait<1>() for cpAsyncWait<0>()',
      '5: without cpAsyncWait<0>()',
      '6: 5 for min(n, 5)',
      '6: i <= n',
      '6: n for min(n, 5)',
      '7: true for n == 2',
      '8: 7 for min(n, 7)',
      '8: n <= 9',
      '8: n >= min(n, 7)',
      '8: true for n < 9',
      '8: true for n > min(n, 7)',
      '8: without barSync(1, n < 9 ? 32 : 64)',
      '8: n for min(n, 7)',
    ].sort(),
  );
  assert.match(source, /void host\(int n\) \{ if \(n < 3\) cpAsyncWait<0>\(\); \}/);
});

for (const program of kernels) {
  test(program.name, async () => {
    const headers = new Set(program.headers);
    const count = program.kernels.reduce(
      (sum, file) => sum + mutate(writtenOut(file, headers).text).mutations.length,
      0,
    );
    const groups = Math.max(1, Math.ceil(count / aDay));
    const tried = await tryMutations(program, (n) => everything || n % groups === today % groups);
    const excused = program.equivalent ?? {};
    const survivors = tried.filter((it) => !it.by && !excused[it.change]);
    console.log(
      `${program.name}: ${tried.length} of ${count} mutations tried, ${tried.filter((it) => it.by).length} found`,
    );
    for (const it of tried.filter((it) => !it.by && excused[it.change]))
      console.log(`  ${it.file}:${it.line}: ${it.change}: ${excused[it.change]}`);
    assert.equal(
      survivors.map((it) => `${it.file}:${it.line}: ${it.change}`),
      [],
    );
    const noticed = new Set(tried.filter((it) => it.by).map((it) => it.change));
    if (everything)
      for (const change of Object.keys(excused)) {
        assert.ok(
          tried.some((it) => it.change === change),
          `no mutation "${change}" any more`,
        );
        assert.not(
          noticed.has(change) && !tried.some((it) => it.change === change && !it.by),
          `"${change}" is seen now`,
        );
      }
  });
}

test.run();
