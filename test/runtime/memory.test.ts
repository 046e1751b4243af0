import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { child, ended } from '../support/runtime.ts';

// One tensor of these programs has 256 KiB: one that leaks in each round would come to 175 MiB.
for (const what of ['compile, run, dispose', 'run', 'refused compilations', 'devices', 'dropped']) {
  test(`1,000 rounds stay within a fixed bound of memory: ${what}`, async () => {
    const result = await child('memory', what);
    ended(result);
    const { grown, threads } = JSON.parse(result.output);
    assert.ok(grown < 24, `grew by ${grown} MiB`);
    assert.ok(threads < 40, `${threads} threads`);
  });
}

test.run();
