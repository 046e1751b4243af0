import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { Choice, Verdict } from '../../lib/data/comparisons.ts';
import { agreementOf, cohenKappa, fleissKappa } from '../../lib/eval/kappa.ts';

const test = suite('kappa');
const close = (actual: number, expected: number): void =>
  assert.ok(Math.abs(actual - expected) < 1e-12, `${actual} is not ${expected}`);

/** Judgements of two people, by how often each couple of them occurs. */
function couple(counts: Record<string, number>): [string[], string[]] {
  const both = Object.entries(counts).flatMap(([key, count]) => Array.from({ length: count }, () => key.split(' ')));
  return [both.map(([first]) => first), both.map(([, second]) => second)];
}

test("Cohen's kappa by hand", () => {
  // 35 of 50 alike; by chance 0.5 x 0.6 + 0.5 x 0.4 = 0.5.
  close(cohenKappa(...couple({ 'a a': 20, 'a b': 5, 'b a': 10, 'b b': 15 })), 0.4);
  // 0.2 alike, 0.52 by chance.
  close(cohenKappa(...couple({ 'a a': 2, 'a b': 4, 'b a': 4 })), (0.2 - 0.52) / 0.48);
  close(cohenKappa(['a', 'b', 'tie'], ['a', 'b', 'tie']), 1);
  assert.ok(Number.isNaN(cohenKappa(['a', 'a'], ['a', 'a'])));
});

test("Fleiss' kappa by hand, and with as many judges as come", () => {
  // Each thing: the part of its couples that are alike. a: 3 of 3, 1 of 3, 1 of 3. Shares of a and b: 6/9 and 3/9.
  const things = [
    ['a', 'a', 'a'],
    ['a', 'a', 'b'],
    ['b', 'a', 'b'],
  ];
  const expected = (6 / 9) ** 2 + (3 / 9) ** 2;
  const { share, kappa } = fleissKappa(things);
  close(share, 5 / 9);
  close(kappa, (5 / 9 - expected) / (1 - expected));
  close(fleissKappa([...things, ['b', 'b']]).share, (5 / 3 + 1) / 4);
  close(
    fleissKappa([
      ['a', 'a'],
      ['b', 'b'],
    ]).kappa,
    1,
  );
});

const verdict = (choices: Record<string, Choice>): Pick<Verdict, 'annotators'> => ({
  annotators: Object.entries(choices).map(([annotator, choice]) => ({ annotator, choice })),
});

test('only pairs that both judged count, and skips are no judgements', () => {
  const { couples, all } = agreementOf([
    verdict({ ann: 'a', bob: 'a' }),
    verdict({ ann: 'b', bob: 'tie' }),
    verdict({ ann: 'b', bob: 'b' }),
    verdict({ ann: 'a', bob: 'skip' }),
    verdict({ bob: 'a' }),
  ]);
  assert.is(all, undefined);
  assert.is(couples.length, 1);
  assert.equal(couples[0].annotators, ['ann', 'bob']);
  assert.is(couples[0].pairs, 3);
  close(couples[0].share, 2 / 3);
  // By chance: a 1/3 x 1/3, b 2/3 x 1/3.
  close(couples[0].kappa, (2 / 3 - 1 / 3) / (1 - 1 / 3));
});

test('three people have three couples and one figure for all', () => {
  const { couples, all } = agreementOf([
    verdict({ ann: 'a', bob: 'a', cid: 'a' }),
    verdict({ ann: 'b', bob: 'b' }),
    verdict({ ann: 'b' }),
  ]);
  assert.equal(
    couples.map(({ annotators, pairs }) => [...annotators, pairs]),
    [
      ['ann', 'bob', 2],
      ['ann', 'cid', 1],
      ['bob', 'cid', 1],
    ],
  );
  assert.equal(all, { annotators: 3, pairs: 2, share: 1, kappa: 1 });
  assert.equal(agreementOf([]), { couples: [] });
});

test.run();
