import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { bootstrapMean, wilson } from '../../lib/eval/interval.ts';
import { random } from '../support/random.ts';

test("Wilson's interval is that of the published examples", () => {
  // Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
  const bounds = [
    [81, 263, 0.2553, 0.3662],
    [15, 148, 0.0624, 0.1605],
    [0, 20, 0, 0.1611],
    [1, 29, 0.0061, 0.1718],
  ];
  for (const [correct, count, low, high] of bounds) {
    const found = wilson(correct, count);
    assert.ok(Math.abs(found.low - low) < 5e-5 && Math.abs(found.high - high) < 5e-5, `${correct} of ${count}`);
  }
});

test('a bootstrap interval is as wide as the deviation of the mean says, wherever the values lie', () => {
  const count = 400;
  const { next } = random(3);
  const values = Array.from({ length: count }, () => 7 + 2 * next() ** 2);
  const { mean, low, high } = bootstrapMean(values);
  const exact = values.reduce((a, b) => a + b) / count;
  const deviation = Math.sqrt(values.reduce((sum, v) => sum + (v - exact) ** 2, 0) / count);
  assert.ok(Math.abs(mean - exact) < 1e-9);
  const half = (1.96 * deviation) / Math.sqrt(count);
  assert.ok(Math.abs((mean - low) / half - 1) < 0.1 && Math.abs((high - mean) / half - 1) < 0.1, `${low} ${high}`);
  assert.equal(bootstrapMean([2, 2, 2]), { mean: 2, low: 2, high: 2 });
});

test.run();
