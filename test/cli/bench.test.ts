import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { opBenches } from '../../lib/bench/ops.ts';
import { errorLines, refl } from './support.ts';

const test = suite('cli bench');
const smallest = 'layer norm 4096x320';

test('an operator gives one JSON line: its name, its time, its rate, and where it ran', async () => {
  const { code, stdout, stderr } = await refl(['bench', smallest, '--json', '--threads', '1']);
  assert.equal([code, stderr], [0, '']);
  const [row, ...more] = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  assert.is(more.length, 0);
  assert.equal([row.name, row.device, row.threads, row.runs.length], [smallest, 'cpu', 1, 5]);
  assert.ok(row.seconds > 0 && row.gigabytesPerSecond > 0);
  // What normalises does no products.
  assert.is(row.gflops, undefined);
});

test('a table has a heading and a line for each, and part of a name names several', async () => {
  const { code, stdout } = await refl(['bench', 'x1280x1280', '--threads', '1']);
  assert.is(code, 0);
  const [where, heading, ...lines] = stdout.trim().split('\n');
  assert.is(where, 'cpu, 1 threads');
  assert.match(heading, /^operator or model +ms +GFLOP\/s/);
  const names = opBenches.map(({ name }) => name).filter((name) => name.includes('x1280x1280'));
  assert.ok(names.length > 1);
  assert.equal(
    lines.map((line) => line.split(/ {2,}/)[0]),
    names,
  );
});

test('a name that is nothing, or a device that is not there, is a wrong usage', async () => {
  for (const args of [['nothing'], [smallest, '--device', 'abacus']]) {
    const outcome = await refl(['bench', ...args]);
    assert.is(outcome.code, 2);
    assert.is(errorLines(outcome).length, 1);
  }
});

test.run();
