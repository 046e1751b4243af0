// timeout: 600 s
// Each class of fault is planted in a kernel and must be caught, by the build named here and for the reason given; the same
// kernels without their faults pass in every build and under shuffled schedules.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { build, pooled, run, type Variant, variants } from './build.ts';
import { faults } from './kernels.ts';

const overflow = /use-after-poison|shared memory out of bounds|index 128 out of bounds/;
const race = /race: (read|write|atomic update) at .*faults\.cu:\d+ and (read|write|atomic update) by thread \d+/;
const uninitialised = /nan exceeds/;

/** What must catch a fault; where a build is left out, that build may or may not see it. */
const caught: Record<string, Partial<Record<Variant, RegExp>>> = {
  'missing barrier': { race },
  'misplaced barrier': { race },
  'missing trailing barrier': { race },
  'missing __syncwarp': { race },
  'global read out of bounds': { address: /heap-buffer-overflow/ },
  'global write out of bounds': { address: /heap-buffer-overflow/, plain: /canary overwritten: 0 bytes after/ },
  'static shared memory out of bounds': { address: overflow, race: overflow, plain: overflow },
  'static shared memory read out of bounds': { address: overflow, race: overflow },
  'dynamic shared memory out of bounds': { address: overflow, race: overflow, plain: overflow },
  'from one piece into the next': { address: overflow, race: overflow, plain: overflow },
  'uninitialised shared memory': { plain: uninitialised },
  'cp.async waited for too little': { plain: uninitialised },
  'cp.async without a barrier': { race },
  'cp.async over what is still read': { race },
  'misaligned pack': { plain: /misaligned access: 8 bytes/ },
  'misaligned cast': { address: /misaligned address/ },
  'divergent barrier': {
    plain: /deadlock: .*64 wait for __syncthreads at .*faults\.cu:\d+ \(threads 0\.\.63\); 64 wait for/,
  },
  'exit before a barrier': { plain: /deadlock: .*100 wait for __syncthreads .*; 28 have exited/ },
  'named barrier, two counts': { plain: /barrier count mismatch: barrier 1 with/ },
  'named barrier, one missing': { plain: /deadlock: .*64 wait for bar\.sync at/ },
  'divergent shuffle': { plain: /divergent warp: a shuffle/ },
  'partial warp': { plain: /divergent warp/ },
  'write outside the output': { plain: /canary overwritten: 4 bytes before/, address: /heap-buffer-overflow/ },
  'missing output element': { plain: /nan exceeds .*element 77|never written: element 77/ },
  'race between blocks': { race: /race: .* of block 0 at/ },
  'missing fence between blocks': { race: /race: .* of block 0 at/ },
  'shared memory too small': {
    plain: /shared memory too small: the pieces so far need 1024 bytes; the launch gives 512/,
  },
};

for (const variant of variants) {
  test(`${variant}: the kernels without their faults pass`, async () => {
    const path = await build(faults, variant);
    for (const schedule of [0, 1, 2, 3]) {
      const { code, cases, stderr } = await run(path, ['--case', 'without faults', '--schedule', String(schedule)]);
      assert.is(code, 0, `${cases[0]?.problem}\n${stderr}`);
    }
  });

  test(`${variant}: planted faults are caught`, async () => {
    const path = await build(faults, variant);
    const jobs = Object.entries(caught).flatMap(([name, by]) => {
      const pattern = by[variant];
      return pattern ? [{ name, pattern }] : [];
    });
    const results = await pooled(
      jobs.map(
        ({ name }) =>
          () =>
            run(path, ['--case', name], 20),
      ),
    );
    results.forEach(({ code, cases, stderr }, i) => {
      const { name, pattern } = jobs[i];
      assert.is.not(code, 0, `${name} was not caught`);
      assert.match(`${cases[0]?.problem}\n${stderr}`, pattern, name);
    });
  });
}

test('every planted fault has its row here', async () => {
  const { stdout } = await run(await build(faults, 'plain'), ['--list']);
  const names = stdout.trim().split('\n').slice(1);
  assert.equal(names.sort(), Object.keys(caught).sort());
});

// Where no instrumentation looks, greedy warps in a random order find most missing barriers by their wrong results.
test('a shuffled schedule alone shows the missing trailing barrier', async () => {
  const path = await build(faults, 'plain');
  const seeds = [1, 2, 3, 4, 5, 6];
  const runs = await pooled(
    seeds.map((seed) => () => run(path, ['--case', 'missing trailing barrier', '--schedule', String(seed)])),
  );
  assert.ok(runs.filter(({ code }) => code !== 0).length >= 4);
});

test.run();
