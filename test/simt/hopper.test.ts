// timeout: 600 s
// sm_90a's instructions (mbarriers, bulk copies, wgmma, setmaxnreg) do what their manual says, and each fault planted in a
// product made of them is caught.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { build, pooled, run, type Variant, variants } from './build.ts';
import { hopper } from './kernels.ts';

const unordered = /race: asynchronous (read|write) at .*hopper\.cu:\d+ and .*; nothing orders the two/;
const deadlock = (text: string) => new RegExp(`deadlock: .*${text}`);

const caught: Record<string, Partial<Record<Variant, RegExp>>> = {
  'missing proxy fence': { race: /the writer has not fenced it for the async proxy/ },
  'wait on the wrong parity': { plain: /mbarrier misuse/, race: unordered },
  'too many bytes expected': { plain: deadlock('lacks 0 arrivals and 16 bytes') },
  'too few bytes expected': { plain: /land in phase 1: too few were expected/ },
  'accumulator read before its wait': { plain: /nan exceeds/ },
  'accumulator written before its wait': { plain: /accumulator touched: register 0/ },
  'wrong stride in a descriptor': { plain: /C: error/ },
  'wrong swizzle in a descriptor': { plain: /C: error/ },
  'missing wgmma fence': { plain: /missing fence: thread \d+ has not called wgmmaFence/ },
  'missing wait for a full stage': { plain: /mbarrier misuse/, race: unordered },
  'missing wait for an empty stage': { plain: /mbarrier misuse/ },
  'stage released too early': { race: unordered },
  'missing wgmma wait': { plain: /operands of a wgmma changed/ },
  'missing fence after mbarrier.init': { plain: /missing fence: the mbarrier was not fenced/ },
  'missing barrier after mbarrier.init': { race: /race: read at .*hopper\.cu:\d+ and write by thread 0/ },
  'missing barrier before a bulk store': { race: unordered },
  'missing wait for a bulk store': { plain: /exits before its bulk stores have read their source/ },
  'too many registers': { plain: deadlock('registers of other warpgroups') },
  'too few arrivals asked for': { plain: /mbarrier misuse/, race: unordered },
};

const right = [
  'without faults',
  'boxes of ranks 1 to 5',
  ...['none', '32', '64', '128'].map((n) => `wgmma, swizzle ${n}`),
];

for (const variant of variants) {
  test(`${variant}: right results, also when copies land early and in any order`, async () => {
    const path = await build(hopper, variant);
    const jobs = [0, 1, 2].flatMap((schedule) => right.map((name) => ({ name, schedule })));
    const runs = await pooled(
      jobs.map((it) => () => run(path, ['--case', it.name, '--schedule', String(it.schedule)], 60)),
    );
    runs.forEach(({ code, cases, stderr }, i) => {
      const { name, schedule } = jobs[i];
      assert.is(code, 0, `${name}, schedule ${schedule}: ${cases[0]?.problem}\n${stderr}`);
      assert.is(cases.length, 1);
    });
  });
}

for (const variant of ['plain', 'race'] as const) {
  test(`${variant}: planted faults are caught`, async () => {
    const path = await build(hopper, variant);
    const jobs = Object.entries(caught).flatMap(([name, by]) => (by[variant] ? [{ name, pattern: by[variant] }] : []));
    const results = await pooled(
      jobs.map(
        ({ name }) =>
          () =>
            run(path, ['--case', name], 60),
      ),
    );
    results.forEach(({ code, cases }, i) => {
      const { name, pattern } = jobs[i];
      assert.is.not(code, 0, `${name} was not caught`);
      assert.match(`${cases[0]?.problem}`, pattern, name);
    });
  });
}

test('every planted fault has its row here', async () => {
  const { stdout } = await run(await build(hopper, 'plain'), ['--list']);
  const names = stdout.trim().split('\n');
  assert.equal(names.sort(), [...right, ...Object.keys(caught)].sort());
});

test.run();
