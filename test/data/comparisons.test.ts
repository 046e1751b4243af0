import { readFileSync, writeFileSync } from 'node:fs';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readChoices, readComparisons, shareOf } from '../../lib/data/comparisons.ts';
import { JsonLinesFile, readJsonLines } from '../../lib/data/jsonl.ts';
import { Lock } from '../../lib/data/lock.ts';
import { readMeasures } from '../../lib/data/measures.ts';
import { temporaryFolder } from '../restore/support.ts';
import { errorOf } from '../support/runtime.ts';
import { lines } from '../train/preference.ts';

const folder = temporaryFolder();
const file = (name: string, text: string): string => {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
};
for (const name of ['0.png', '1.png', '2.png']) file(name, 'a picture');
const pair = { pair: 'x', person: 'p', a: '0.png', b: '1.png' };

async function refused(read: () => Promise<unknown>, code: string, message: RegExp): Promise<void> {
  const error = await errorOf(read);
  assert.is(error.code, code, error.stack);
  assert.match(error.message, message);
}

test('pairs are read with their pictures beside the file; a repeated line counts once', async () => {
  const path = file('pairs.jsonl', lines([pair, { ...pair, pair: 'y', caption: 'a face' }, pair]));
  const { value, notes } = await readComparisons(path);
  assert.equal(value, [
    { ...pair, a: join(folder, '0.png'), b: join(folder, '1.png') },
    { ...pair, pair: 'y', a: join(folder, '0.png'), b: join(folder, '1.png'), caption: 'a face' },
  ]);
  assert.equal(notes, [`${path}, line 3: the pair x stands twice`]);
});

test('pairs that make no sense are refused with their line', async () => {
  const read = (...records: object[]) => readComparisons(file('bad.jsonl', lines(records)));
  await refused(() => read(pair, { ...pair, b: '2.png' }), 'ERR_DATA', /line 2: the pair x contradicts .*line 1/);
  await refused(() => read({ ...pair, b: './0.png' }), 'ERR_DATA', /line 1: a and b are the same picture/);
  await refused(() => read({ ...pair, person: 7 }), 'ERR_DATA', /line 1: it needs a text under "person"/);
  await refused(
    () => read(pair, { ...pair, pair: 'y', a: 'gone.png' }),
    'ERR_FILE',
    /1 pictures .* not there:\n.*gone\.png/,
  );
  await refused(
    () => readComparisons(file('bad.jsonl', `[]\n${lines([pair])}`)),
    'ERR_DATA',
    /line 1: it is not a JSON/,
  );
});

test('a last line that was cut off is left out, one cut off in the middle of a file is an error', async () => {
  const whole = lines([pair, { ...pair, pair: 'y' }]);
  for (let end = lines([pair]).length + 1; end < whole.length - 1; end += 7) {
    const { value, notes } = await readComparisons(file('cut.jsonl', whole.slice(0, end)));
    assert.is(value.length, 1, `${end}`);
    assert.match(notes[0], /the last line was cut off/);
  }
  assert.is(
    (await readComparisons(file('cut.jsonl', whole.slice(0, -1)))).value.length,
    2,
    'only the line end is missing',
  );
  await refused(() => readComparisons(file('cut.jsonl', `${whole.slice(0, 20)}\n${whole}`)), 'ERR_DATA', /line 1/);
});

test('choices make votes: ties are halves, skips nothing, and undo takes one back', async () => {
  const comparisons = (await readComparisons(file('pairs.jsonl', lines([pair, { ...pair, pair: 'y' }])))).value;
  const read = (...said: [string, string, string][]) => {
    const records = said.map(([name, annotator, choice]) => ({ pair: name, annotator, choice }));
    return readChoices(file('choices.jsonl', lines(records)), comparisons);
  };
  const { value, notes } = await read(
    ...([
      ['x', 'ann', 'b'],
      ['x', 'bob', 'a'],
      ['x', 'ann', 'undo'],
      ['x', 'ann', 'a'],
      ['x', 'cid', 'tie'],
      ['x', 'dan', 'skip'],
      ['x', 'bob', 'a'],
      ['y', 'ann', 'skip'],
    ] satisfies [string, string, string][]),
  );
  assert.is(shareOf(value.get('x')!), 2.5 / 3);
  assert.is(shareOf(value.get('y')!), undefined);
  assert.match(notes.join(), /line 7: the choice of bob for x stands twice/);
  await refused(
    () => read(['x', 'ann', 'a'], ['x', 'bob', 'b'], ['x', 'ann', 'b']),
    'ERR_DATA',
    /line 3: ann chose a for x in .*line 1, and b here/,
  );
  await refused(() => read(['z', 'ann', 'a']), 'ERR_DATA', /line 1: there is no pair z/);
  await refused(() => read(['x', 'ann', 'c']), 'ERR_DATA', /must be a, b, tie, skip or undo, got c/);
});

test('metrics must be finite, and the same for all pictures', async () => {
  const read = (text: string) => readMeasures(file('metrics.jsonl', text));
  const row = (image: string, metrics: object): string => lines([{ image, metrics }]);
  const { value } = await read(row('0.png', { b: 2, a: 1 }) + row('1.png', { a: 3, b: 4 }));
  assert.equal(value.metrics, ['a', 'b']);
  assert.equal(value.values.get(join(folder, '1.png')), [3, 4]);
  await refused(() => read(row('0.png', { a: null })), 'ERR_DATA', /line 1: a is not a finite number/);
  await refused(() => read('{"image": "0.png", "metrics": {"a": NaN}}\n'), 'ERR_DATA', /line 1: .* not finite/);
  await refused(() => read(row('0.png', { a: 1 }) + row('1.png', { b: 1 })), 'ERR_DATA', /line 2: its metrics are b/);
  await refused(() => read(row('0.png', { a: 1 }) + row('0.png', { a: 2 })), 'ERR_DATA', /line 2: .* contradicts/);
  await refused(() => read(''), 'ERR_DATA', /it holds no values/);
});

test('a file that grows keeps whole lines through a crash, and takes one writer at a time', async () => {
  const path = file('grows.jsonl', '{"n": 1}\n{"n": ');
  {
    await using grows = await JsonLinesFile.open(path);
    assert.equal(
      grows.lines.map(({ record }) => record.n),
      [1],
    );
    await refused(() => JsonLinesFile.open(path), 'ERR_FILE', /is being written by process \d+/);
    await grows.append({ n: 2 });
    assert.is(readFileSync(path, 'utf8'), '{"n": 1}\n{"n":2}\n');
  }
  writeFileSync(path, '{"n": 1}');
  {
    await using grows = await JsonLinesFile.open(path);
    await grows.append({ n: 2 });
  }
  assert.is((await readJsonLines(path)).lines.length, 2);
  assert.not.ok((await readdir(folder)).some((name) => name.includes('.lock')));
});

test('a lock that a killed process left is taken over; a living one is not', async () => {
  const path = file('a.lock', '{"pid": 2147483646, "started": "1"}');
  using lock = await Lock.take(path, 'the folder');
  assert.is(JSON.parse(readFileSync(path, 'utf8')).pid, process.pid);
  await refused(() => Lock.take(path, 'the folder'), 'ERR_FILE', /the folder is being written by process/);
  lock.release();
  // The number of a process that lives, but of one that began at another time.
  file('a.lock', JSON.stringify({ pid: process.pid, started: '1' }));
  (await Lock.take(path, 'the folder')).release();
  for (const text of ['', 'no JSON', '{"pid": -1, "started": ""}'])
    (await Lock.take(file('a.lock', text), 'it')).release();
  const many = await Promise.allSettled(Array.from({ length: 20 }, () => Lock.take(path, 'it')));
  const taken = many.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
  assert.is(taken.length, 1);
  taken[0].release();
});

test.run();
