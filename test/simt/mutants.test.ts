// timeout: 1500 s
// The kernels' tests see that a barrier, wait or bounds check is gone. Which sources and mutations are tried changes from day
// to day; REFL_MUTANTS=all tries all of them (with REFL_MUTANTS=all node --import tsx test/run.ts simt/mutants).
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { kernels } from './kernels.ts';
import { mutable, tryMutations } from './mutants.ts';
import { mutate } from './mutate.ts';

const everything = process.env.REFL_MUTANTS === 'all';
const today = Math.floor(Date.now() / 86_400_000);
/** Compiling is what takes long: a day's sample is some mutations of few sources. */
const sourcesADay = 5;
const mutationsADay = 8;

const sources = kernels.flatMap((program) =>
  mutable(program).map(({ file, mutations }) => ({ key: `${program.name} ${file}`, count: mutations.length })),
);
const turns = Math.ceil(sources.length / sourcesADay);
/** How many mutations each of today's sources has. */
const chosen = new Map(
  sources.filter((_, i) => everything || i % turns === today % turns).map(({ key, count }) => [key, count]),
);

/** Whether mutation `n` of `count` is tried the next time that its source is. */
function isNext(n: number, count: number): boolean {
  const groups = Math.ceil(count / mutationsADay);
  return everything || n % groups === Math.floor(today / turns) % groups;
}

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
  const countOf = (file: string): number => chosen.get(`${program.name} ${file}`) ?? 0;
  const count = program.kernels.reduce((sum, file) => sum + countOf(file), 0);
  if (count === 0) continue;
  test(program.name, async () => {
    const tried = await tryMutations(program, (file, n) => countOf(file) > 0 && isNext(n, countOf(file)));
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
