import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Annotations, checkName, sides } from '../../lib/data/annotations.ts';
import { readChoices, shareOf } from '../../lib/data/comparisons.ts';
import { temporaryFolder } from '../restore/support.ts';
import { comparisonsIn, namesLeft, writePairs } from '../server/pairs.ts';
import { codeOf, errorOf } from '../support/runtime.ts';

const test = suite('annotations');
const folder = temporaryFolder();
const comparisons = await comparisonsIn(await writePairs(folder, 200));
const few = comparisons.slice(0, 4);

let files = 0;
const newFile = (): string => join(folder, `choices-${files++}.jsonl`);
const linesOf = (path: string): Record<string, unknown>[] =>
  readFileSync(path, 'utf8')
    .trim()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line));

test('everybody has an order and sides of their own, which the seed decides', async () => {
  const seen = async (seed: number, annotator: string, of = comparisons) => {
    await using annotations = await Annotations.open(of, { out: newFile(), seed });
    return annotations.remaining(annotator).map(({ comparison, left }) => `${comparison.pair} ${left}`);
  };
  const ann = await seen(0, 'ann');
  assert.equal(await seen(0, 'ann'), ann);
  assert.is(new Set(ann).size, 200);
  for (const other of [await seen(0, 'bob'), await seen(1, 'ann')]) {
    assert.not.equal(other, ann);
    // Sides differ as well as the order: about half of 200 are as they were.
    const alike = other.filter((pair) => ann.includes(pair)).length;
    assert.ok(alike > 70 && alike < 130, `${alike} sides alike`);
  }
  const left = ann.filter((pair) => pair.endsWith(' a')).length;
  assert.ok(left > 70 && left < 130, `A lies left ${left} times of 200`);
  // More pairs change nothing among those that were there.
  const fewer = await seen(0, 'ann', comparisons.slice(50));
  assert.equal(
    ann.filter((pair) => fewer.includes(pair)),
    fewer,
  );
});

test('a choice is written as train svm reads it, of the pair as it stands and with the side it lay on', async () => {
  const out = newFile();
  await using annotations = await Annotations.open(few, { out, seed: 5 });
  const expected = new Map<string, string>();
  for (const [i, { comparison, left }] of annotations.remaining('ann').entries()) {
    const side = sides[i];
    await annotations.choose('ann', comparison.pair, side, 1.5);
    // On the disk when the call is over.
    const { at, ...line } = linesOf(out).at(-1)!;
    assert.match(String(at), /^\d{4}-.*Z$/);
    const choice = { left, right: left === 'a' ? 'b' : 'a', tie: 'tie', skip: 'skip' }[side];
    assert.equal(line, { pair: comparison.pair, annotator: 'ann', choice, left, seconds: 1.5, seed: 5 });
    expected.set(comparison.pair, choice);
  }
  const { value, notes } = await readChoices(out, few);
  assert.equal(notes, []);
  for (const [pair, choice] of expected) {
    assert.equal(value.get(pair)!.annotators, [{ annotator: 'ann', choice }]);
    assert.is(shareOf(value.get(pair)!), { a: 1, b: 0, tie: 0.5, skip: undefined }[choice]);
  }
  const standing = annotations.standing('ann');
  assert.equal(standing, { annotator: 'ann', pairs: 4, done: 4, skipped: 1, decided: 2, leftChosen: 1 });
  assert.equal(annotations.verdicts().length, 4);
});

test('undo takes back one after the other, across a restart, and shows that pair again', async () => {
  const out = newFile();
  let order: string[];
  {
    await using annotations = await Annotations.open(few, { out });
    order = namesLeft(annotations, 'ann');
    for (const pair of order.slice(0, 3)) await annotations.choose('ann', pair, 'tie');
    assert.is(await annotations.undo('ann'), order[2]);
    assert.is(await annotations.undo('bob'), undefined);
  }
  await using annotations = await Annotations.open(few, { out });
  assert.equal(namesLeft(annotations, 'ann'), [order[2], order[3]]);
  assert.is(await annotations.undo('ann'), order[1]);
  assert.equal(namesLeft(annotations, 'ann'), [order[1], order[2], order[3]]);
  await annotations.choose('ann', order[3], 'skip');
  assert.is(await annotations.undo('ann'), order[3]);
  assert.equal(namesLeft(annotations, 'ann'), [order[3], order[1], order[2]]);
  await annotations.choose('ann', order[3], 'left');
  assert.equal(namesLeft(annotations, 'ann'), [order[1], order[2]]);
  assert.is(await annotations.undo('ann'), order[3]);
  assert.is(await annotations.undo('ann'), order[0]);
  assert.is(await annotations.undo('ann'), undefined);
  assert.equal((await readChoices(out, few)).value.size, 0);
});

test('the same choice twice is one line, another one is refused', async () => {
  const out = newFile();
  await using annotations = await Annotations.open(few, { out });
  const [{ comparison }] = annotations.remaining('ann');
  const both = await Promise.allSettled([
    annotations.choose('ann', comparison.pair, 'left'),
    annotations.choose('ann', comparison.pair, 'left'),
    annotations.choose('ann', comparison.pair, 'right'),
  ]);
  assert.equal(
    both.map(({ status }) => status),
    ['fulfilled', 'fulfilled', 'rejected'],
  );
  assert.is(await codeOf(() => annotations.choose('ann', comparison.pair, 'tie')), 'ERR_DATA');
  assert.is(await codeOf(() => annotations.choose('ann', 'other', 'tie')), 'ERR_OPTION');
  assert.is(await codeOf(() => annotations.choose('', comparison.pair, 'tie')), 'ERR_OPTION');
  assert.is(linesOf(out).length, 1);
});

test('a file is gone on with over a cut line, together with what others wrote; nonsense is refused', async () => {
  const out = newFile();
  const line = JSON.stringify({ pair: few[0].pair, annotator: 'ann', choice: 'b' });
  writeFileSync(out, `${line}\n{"pair": "sec`);
  {
    await using annotations = await Annotations.open(few, { out });
    assert.match(annotations.notes[0], /the last line was cut off/);
    assert.is(annotations.standing('ann').done, 1);
    // Nobody knows on which side it lay.
    assert.is(annotations.standing('ann').decided, 0);
    const error = await errorOf(() => Annotations.open(few, { out }));
    assert.match(error.message, /is being written by process/);
  }
  assert.is(readFileSync(out, 'utf8'), `${line}\n`);
  writeFileSync(out, `${line}\n${line.replace('"b"', '"a"')}\n`);
  assert.is(await codeOf(() => Annotations.open(few, { out })), 'ERR_DATA');
  writeFileSync(out, line.replace(few[0].pair, 'gone'));
  assert.is(await codeOf(() => Annotations.open(few, { out })), 'ERR_DATA');
  assert.is(await codeOf(() => Annotations.open(few, { out: newFile(), seed: 0.5 })), 'ERR_OPTION');
  assert.is(await codeOf(() => Annotations.open([], { out: newFile() })), 'ERR_DATA');
});

test('names are one line of text', () => {
  for (const name of ['A', 'Ann Ä. O\u2019Neil', '李', 'x'.repeat(60)]) checkName(name);
  for (const name of ['', ' ', ' a', 'a ', 'a\nb', 'a\u0000', '\u202eabc', 'x'.repeat(61)]) {
    assert.throws(() => checkName(name), /a name must have/);
  }
});

test.run();
