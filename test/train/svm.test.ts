import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { Scaler, Svm } from '../../lib/train/svm.ts';
import { random } from '../support/random.ts';
import { errorOf } from '../support/runtime.ts';

/** Points around the corners of a square, labelled so that no line parts the two kinds. */
function corners(): { rows: number[][]; labels: (0 | 1)[] } {
  const { next } = random(7);
  const rows = Array.from({ length: 80 }, (_, i) => [(i % 2) + 0.2 * next(), ((i >> 1) % 2) + 0.2 * next()]);
  return { rows, labels: rows.map((_, i) => ((i % 2) ^ ((i >> 1) % 2)) as 0 | 1) };
}

test('a classifier tells kinds apart that no line parts, whichever comes first', () => {
  const { rows, labels } = corners();
  for (const flipped of [0, 1]) {
    const wanted = labels.map((label) => (label ^ flipped) as 0 | 1);
    const svm = Svm.train(rows, wanted, { cost: 10, gamma: 4 });
    assert.equal(
      rows.map((row) => Number(svm.decision(row) > 0)),
      wanted,
    );
    assert.ok(svm.state.vectors.length < rows.length);
    const again = new Svm(JSON.parse(JSON.stringify(svm.state)));
    assert.is(again.decision([0.3, 0.8]), svm.decision([0.3, 0.8]));
  }
});

test('free support vectors lie on the margin, bound ones within it', () => {
  const { rows, labels } = corners();
  const svm = Svm.train(rows, labels, { cost: 1, gamma: 1 });
  const { vectors, coefficients } = svm.state;
  assert.ok(Math.abs(coefficients.reduce((sum, c) => sum + c, 0)) < 1e-6, 'they balance');
  vectors.forEach((vector, i) => {
    const margin = Math.sign(coefficients[i]) * svm.decision(vector as number[]);
    if (Math.abs(coefficients[i]) < 1 - 1e-9) assert.ok(Math.abs(margin - 1) < 1e-4, `vector ${i}: ${margin}`);
    else assert.ok(margin < 1 + 1e-4, `vector ${i}: ${margin}`);
  });
});

test('labels of one kind are refused', async () => {
  const error = await errorOf(async () => Svm.train([[1], [2]], [1, 1], { cost: 1, gamma: 1 }));
  assert.equal([error.code, error.message], ['ERR_OPTION', 'all 2 labels are alike: a classifier needs both kinds']);
});

test('features are scaled to mean 0 and deviation 1; what never varies is centred', () => {
  const scaler = Scaler.fit([
    [1, 5],
    [3, 5],
  ]);
  assert.equal(scaler.apply([1, 5]), [-1, 0]);
  assert.equal(scaler.apply([4, 6]), [2, 1]);
});

test.run();
