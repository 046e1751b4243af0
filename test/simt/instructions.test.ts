// Every instruction that cuda/simt offers does what its manual says, in every build and under shuffled schedules.
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

test.run();
