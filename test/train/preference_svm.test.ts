import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { foldsOf, holdOut } from '../../lib/train/people.ts';
import { searchPreference } from '../../lib/train/preference_search.ts';
import { fitSlope, logistic, logLoss, PreferenceSvm, type Sample } from '../../lib/train/preference_svm.ts';
import { random } from '../support/random.ts';
import { codeOf, errorOf } from '../support/runtime.ts';
import { metricNames, world } from './preference.ts';

function samples(people: number, options = {}): Sample[] {
  const { pairs, choices, metrics } = world(people, options);
  const values = new Map(metrics.map(({ image, metrics: own }) => [image, Object.values(own)]));
  const choiceOf = new Map(choices.map(({ pair, choice }) => [pair, choice]));
  return pairs.map(({ pair, person, a, b }) => ({
    ...{ pair, person, a: values.get(a)!, b: values.get(b)! },
    share: { a: 1, b: 0 }[choiceOf.get(pair)!] ?? 0.5,
  }));
}

const options = { costs: [1, 10], gammas: [0.03, 0.1], folds: 4, holdout: 0.2, seed: 3 };

test('folds and the held-out part keep people whole, and depend on the seed and the names alone', () => {
  const people = Array.from({ length: 200 }, (_, i) => `p${i % 23}`);
  const folds = foldsOf(people, 5, 7);
  const sizes = [0, 1, 2, 3, 4].map((fold) => folds.filter((f) => f === fold).length);
  assert.ok(Math.max(...sizes) - Math.min(...sizes) <= 9, sizes.join());
  for (const person of new Set(people)) {
    assert.is(new Set(folds.filter((_, i) => people[i] === person)).size, 1);
  }
  const held = holdOut(people, 0.2, 7);
  assert.is(held.size, 5);
  assert.equal(holdOut([...people].reverse(), 0.2, 7), held);
  assert.not.equal(holdOut(people, 0.2, 8), held);
  const more = holdOut([...people, 'another'], 0.2, 7);
  assert.ok([...more].filter((person) => !held.has(person)).length <= 1);
});

test('people who are too few are refused', async () => {
  assert.is(await codeOf(() => foldsOf(['a', 'a', 'b'], 3, 0)), 'ERR_OPTION');
  assert.is(await codeOf(() => holdOut(['a'], 0.1, 0)), 'ERR_OPTION');
  assert.is(await codeOf(() => holdOut(['a', 'b'], 1, 0)), 'ERR_OPTION');
  assert.equal(holdOut(['a'], 0, 0), new Set());
});

test('a margin changes its sign alone where A and B are exchanged', () => {
  const some = samples(12);
  const svm = PreferenceSvm.train(some, { cost: 10, gamma: 0.1 });
  for (const { a, b } of some.slice(0, 20)) {
    assert.is(svm.margin(a, b), -svm.margin(b, a));
    assert.ok(Math.abs(svm.probability(a, b) + svm.probability(b, a) - 1) < 1e-12);
  }
});

test('the slope is the one at which margins predict shares best', () => {
  const { next } = random(4);
  const margins = Array.from({ length: 4000 }, () => 4 * next() - 2);
  const shares = margins.map((margin) => Number(next() < logistic(1.7 * margin)));
  const slope = fitSlope(margins, shares);
  assert.ok(Math.abs(slope - 1.7) < 0.12, `${slope}`);
  const loss = (s: number): number =>
    logLoss(
      margins.map((m) => logistic(s * m)),
      shares,
    );
  assert.ok(loss(slope) <= loss(slope + 0.05) && loss(slope) <= loss(slope - 0.05));
  assert.is(fitSlope([1, -1], [0, 1]), 0, 'margins that mislead say nothing');
  assert.ok(Number.isFinite(fitSlope([1, -1, 2], [1, 0, 1])), 'margins that never err');
});

test('a search finds the rule behind the choices, and what it rests on', async () => {
  const trained: number[] = [];
  const { svm, heldOut, report } = await searchPreference(metricNames, samples(60), options, {
    onTrained: (done, total) => trained.push(done / total),
  });
  assert.equal([trained.length, trained.at(-1)], [2 * 2 * 4 + 1, 1]);
  assert.is(heldOut.length, 12);
  assert.equal([report.people, report.pairs, report.heldOut.count], [60, 360, 72]);
  assert.ok(report.heldOut.share > 0.85 && report.validation.share > 0.85, JSON.stringify(report));
  assert.ok(report.heldOut.low < report.heldOut.share && report.heldOut.share < report.heldOut.high);
  assert.ok(report.heldOut.logLoss < 0.45, `${report.heldOut.logLoss}`);
  const chosen = report.grid.find(({ cost, gamma }) => cost === report.cost && gamma === report.gamma)!;
  assert.is(chosen.accuracy, Math.max(...report.grid.map(({ accuracy }) => accuracy)));
  const [first, second, third] = report.metrics.map(({ name }) => name);
  assert.is(first, 'sharpness');
  assert.equal([second, third].sort(), ['likeness', 'noise']);
  const of = (name: string) => report.metrics.find((metric) => metric.name === name)!;
  assert.is(of('noise').better, 'lower');
  assert.is(of('likeness').better, 'higher');
  assert.ok(Math.abs(of('weather').importance) < 0.03 && of('sharpness').importance > 0.15);

  const again = await searchPreference(metricNames, samples(60), options);
  assert.equal(again.svm.state, svm.state);
  const named = await searchPreference(metricNames, samples(60), { ...options, holdout: heldOut });
  assert.equal([named.svm.state, named.heldOut], [svm.state, heldOut], 'the same people by their names');
  // The people held out took no part: whatever they chose, the classifier is the same.
  const held = new Set(heldOut);
  const turned = samples(60).map((s) => (held.has(s.person) ? { ...s, share: 1 - s.share } : s));
  assert.equal((await searchPreference(metricNames, turned, options)).svm.state, svm.state);
});

test('choices of one kind alone, undecided ones alone, and an abort end a search', async () => {
  const some = samples(8);
  const as = (share: number) => some.map((sample) => ({ ...sample, share }));
  const one = await errorOf(() => searchPreference(metricNames, as(1), options));
  assert.match(one.message, /all 48 decided pairs go to A/);
  assert.match((await errorOf(() => searchPreference(metricNames, as(0.5), options))).message, /no pair is decided/);
  const controller = new AbortController();
  const reason = new Error('enough');
  const aborted = errorOf(() =>
    searchPreference(metricNames, some, options, {
      signal: controller.signal,
      onTrained: () => controller.abort(reason),
    }),
  );
  assert.is(await aborted, reason);
});

test.run();
