// timeout: 900 s
// Every kernel of kernels.ts against its oracle: plainly and with shuffled schedules, under AddressSanitizer, under the race
// detector. A build's cases are shared out over processes, because the sanitised ones run on one thread.
import { availableParallelism } from 'node:os';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { build, pooled, run, type Variant, variants } from './build.ts';
import { kernels } from './kernels.ts';

const schedules: Record<Variant, number[]> = { plain: [0, 1, 2], address: [0], race: [0, 1] };
const shards = Math.min(2, availableParallelism());

for (const program of kernels) {
  for (const variant of variants) {
    test(`${program.name}, ${variant}`, async () => {
      const path = await build(program, variant);
      const jobs = schedules[variant].flatMap((schedule) =>
        Array.from({ length: shards }, (_, shard) => ['--schedule', `${schedule}`, '--shard', `${shard}/${shards}`]),
      );
      const runs = await pooled(jobs.map((args) => () => run(path, args)));
      runs.forEach(({ code, signal, cases, stderr }, i) => {
        const failed = cases.filter((it) => !it.ok).map((it) => `${it.case}: ${it.problem}`);
        assert.equal(failed, [], jobs[i].join(' '));
        assert.is(code, 0, `${jobs[i].join(' ')}: ${signal ?? ''} after ${cases.at(-1)?.case}\n${stderr}`);
      });
      assert.ok(runs.reduce((sum, it) => sum + it.cases.length, 0) >= schedules[variant].length);
    });
  }
}

test.run();
