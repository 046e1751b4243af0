import { join } from 'node:path';
import sharp from 'sharp';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { Choice, Verdict } from '../../lib/data/comparisons.ts';
import { compareWithPeople } from '../../lib/eval/agreement.ts';
import { agreementPage } from '../../lib/eval/agreement_page.ts';
import { sharesChart } from '../../lib/eval/charts.ts';
import type { Label } from '../../lib/train/labels.ts';
import { picture, temporaryFolder } from '../restore/support.ts';
import { codeOf } from '../support/runtime.ts';

const folder = temporaryFolder();

const label = (pair: string, share: number, margin: number, more: Partial<Label> = {}): Label => ({
  ...{ pair, person: pair[0], a: `${pair}a`, b: `${pair}b`, share, margin },
  ...{ source: 'people' as const, split: 'heldout' as const, ...more },
});
const verdict = (...said: [string, Choice][]): Verdict => {
  const count = (choice: Choice): number => said.filter(([, c]) => c === choice).length;
  const annotators = said.map(([annotator, choice]) => ({ annotator, choice }));
  return { a: count('a'), b: count('b'), ties: count('tie'), annotators };
};

/** Margins grow from pair to pair; people and the classifier differ on p1 and p6. */
const labels = [
  label('p0', 1, 0.1),
  label('p1', 0, 0.2),
  label('p2', 0, -0.3),
  label('p3', 1, 0.4),
  label('q4', 0.75, 0.5),
  label('q5', 1, 0.6),
  label('q6', 1, -0.7),
  label('q7', 0, -0.8),
  label('q8', 0.5, 3),
  label('r0', 1, 1, { split: 'train' }),
  label('q9', 0.9, 1, { source: 'svm' }),
];
const verdicts = new Map([
  ['p0', verdict(['ann', 'a'], ['bob', 'a'])],
  ['p1', verdict(['ann', 'b'])],
  ['p2', verdict(['ann', 'b'], ['cid', 'skip'])],
  ['p3', verdict(['bob', 'a'])],
  ['q4', verdict(['ann', 'a'], ['bob', 'tie'])],
  ['q5', verdict(['ann', 'a'], ['bob', 'a'], ['cid', 'a'])],
  ['q6', verdict(['ann', 'a'])],
  ['q7', verdict(['ann', 'b'])],
  ['q8', verdict(['ann', 'a'], ['bob', 'b'])],
  ['r0', verdict(['ann', 'a'])],
]);

test('judges are compared with people who were held out, by closeness, annotator and dispute', () => {
  const always = { name: 'always A', margin: () => 1 };
  const never = { name: 'never sure', margin: () => 0 };
  const report = compareWithPeople(labels, verdicts, [always, never]);
  assert.equal([report.pairs, report.decided, report.people], [9, 8, 2]);
  const counts = ({ correct, count }: { correct: number; count: number }) => [correct, count];
  const [svm, a, none] = report.judges;
  assert.equal(
    [svm, a, none].map(({ name }) => name),
    ['svm', 'always A', 'never sure'],
  );
  assert.equal(
    [svm, a, none].map(({ all }) => counts(all)),
    [
      [6, 8],
      [5, 8],
      [4, 8],
    ],
  );
  assert.equal(svm.quarters.map(counts), [
    [1, 2],
    [2, 2],
    [2, 2],
    [1, 2],
  ]);
  assert.equal(a.quarters.map(counts), [
    [1, 2],
    [1, 2],
    [2, 2],
    [1, 2],
  ]);
  assert.equal(
    a.annotators.map(({ annotator, share }) => [annotator, ...counts(share)]),
    [
      ['ann', 5, 8],
      ['bob', 3, 4],
      ['cid', 1, 1],
    ],
  );
  assert.equal(
    [counts(svm.disputed), counts(a.disputed)],
    [
      [0, 2],
      [1, 2],
    ],
  );
  assert.equal(
    report.disputed.map(({ pair, margins }) => [pair, margins['always A']]),
    [
      ['q6', 1],
      ['p1', 1],
    ],
  );
  // Of ann and bob on p0, q5 and q8, and of cid with both on q5.
  assert.equal(counts(report.among), [4, 5]);
  assert.equal(counts(report.first), [9, 13]);
});

test('a page shows the figures, and the disputed pairs with their pictures', async () => {
  const [a, b] = ['a', 'b'].map((name) => join(folder, `${name}.png`));
  await picture(20, 30).png().toFile(a);
  await picture(300, 300).png().toFile(b);
  const shown = labels.map((l) => ({ ...l, a, b, pair: l.pair === 'q6' ? '<q6>' : l.pair }));
  const odd = new Map([...verdicts].map(([pair, said]) => [pair === 'q6' ? '<q6>' : pair, said]));
  const report = compareWithPeople(shown, odd, [{ name: 'A & B', margin: () => 1 }]);
  const page = await agreementPage(report);
  assert.match(page, /<tr><td>A &amp; B<td>62\.5%<td>8<td>30\.6% to 86\.3%<td>50\.0% of 2/);
  assert.match(page, /&lt;q6&gt;: people 100\.0% for A; svm B by 0\.70, A &amp; B A by 1\.0</);
  assert.not.match(page, /<q6>|https?:(?!\/\/www\.w3\.org)/, 'it needs nothing from elsewhere');
  assert.is(page.match(/<svg /g)?.length, 2);
  const pictures = [...page.matchAll(/src="data:image\/jpeg;base64,([^"]+)"/g)].map(([, data]) =>
    Buffer.from(data, 'base64'),
  );
  const sizes = await Promise.all(pictures.map(async (data) => (await sharp(data).metadata()).width));
  assert.equal(sizes, [20, 224, 20, 224]);
  assert.is(page.match(/class="preferred"/g)?.length, 2);
});

test('a chart has a point and an interval for every share that was counted', async () => {
  const row = (group: string, judge: string, share: number) => ({
    group,
    judge,
    share,
    low: share - 0.1,
    high: share + 0.1,
  });
  const svg = await sharesChart([row('x', 'one', 0.7), row('x', 'two', 0.6), row('y', 'one', Number.NaN)], 'Shares');
  const count = (name: string): number => svg.match(new RegExp(`aria-roledescription="${name}"`, 'g'))?.length ?? 0;
  assert.equal([count('point'), count('rule mark')], [2, 2]);
  assert.match(svg, /stroke-dasharray="4,4"/, 'chance');
  assert.match(svg, />Shares</);
  assert.match(svg, />two</);
});

test('without decided pairs of held-out people there is nothing to compare with', async () => {
  assert.is(await codeOf(() => compareWithPeople(labels.slice(8), verdicts, [])), 'ERR_DATA');
});

test.run();
