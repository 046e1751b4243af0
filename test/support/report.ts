// Runs one test file in this process and sends its counts to the parent: node --import tsx test/support/report.ts FILE
// Uvu's own loop prints a summary that cannot be told from test output, and counts no test that a throwing hook kept from
// running. Its queue is public, so this walks it: each entry runs one suite and returns [errors, passed, skipped, total].
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

export interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

type Suite = () => Promise<[errors: string | true, passed: number, skipped: number, total: number]>;

const queue: Suite[][] = [[]];
Object.assign(globalThis, { UVU_DEFER: 1, UVU_QUEUE: queue, UVU_INDEX: 0 });

async function run(file: string): Promise<Counts> {
  await import(pathToFileURL(resolve(file)).href);
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const suite of queue[0]) {
    const [errors, passed, skipped, total] = await suite();
    if (errors !== true && errors) console.log(`\n${errors}`);
    else if (passed < total) console.log(`\n${total - passed} tests did not run or count: a hook threw`);
    counts.passed += passed;
    counts.failed += total - passed;
    counts.skipped += skipped;
  }
  if (counts.passed + counts.failed + counts.skipped === 0) {
    console.log(`${file} has no tests: does it end with test.run()?`);
    counts.failed = 1;
  }
  return counts;
}

const counts = await run(process.argv[2]);
process.send?.(counts);
if (counts.failed) process.exitCode = 1;
