import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { grad } from '../../lib/graph/grad.ts';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import { dtcwtLoss, dtcwtLow } from '../../lib/metrics/dtcwt.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { random } from '../support/random.ts';

const device = await openDevice('cpu');
test.after(() => device.dispose());

const { next } = random(11);
const uniform = (n: number): Float64Array => Float64Array.from({ length: n }, () => next() - 0.5);
const run = async (outputs: Record<string, Tensor>, feeds: Record<string, Float64Array>) =>
  (await evaluate(device, outputs, feeds)) as Record<string, Float64Array>;

test('sides halve at each level but the first, and a constant doubles there', async () => {
  for (const [side, levels, expected] of [
    [64, 1, 64],
    [64, 3, 16],
    [37, 1, 38],
    [37, 2, 20],
    [54, 3, 14],
    [1, 3, 2],
  ]) {
    const x = input('x', [1, side, side, 1], 'f64');
    const low = dtcwtLow(x, levels);
    assert.equal(low.shape, [1, expected, expected, 1], `${side}, ${levels} levels`);
    const { y } = await run({ y: low }, { x: new Float64Array(side * side).fill(0.25) });
    assert.ok(
      y.every((v) => Math.abs(v - 0.25 * 2 ** (levels - 1)) < 1e-6),
      `${side}, ${levels} levels: ${y[0]}`,
    );
  }
});

test('turning an image turns its low-pass: both axes are treated alike', async () => {
  const [x, turned] = [input('x', [1, 24, 40, 1], 'f64'), input('turned', [1, 40, 24, 1], 'f64')];
  const image = uniform(24 * 40);
  const other = image.map((_, i) => image[(i % 24) * 40 + Math.floor(i / 24)]);
  const { a, b } = await run({ a: dtcwtLow(x), b: dtcwtLow(turned) }, { x: image, turned: other });
  a.forEach((v, i) => {
    assert.ok(Math.abs(v - b[(i % 10) * 6 + Math.floor(i / 10)]) < 1e-12);
  });
});

test('the loss is 0 between equals, and rises along its gradient', async () => {
  const [a, b] = ['a', 'b'].map((name) => input(name, [2, 16, 20, 3], 'f64'));
  const loss = dtcwtLoss(a, b);
  const [slope] = grad(loss, [a]);
  const [values, others] = [uniform(2 * 16 * 20 * 3), uniform(2 * 16 * 20 * 3)];
  assert.is((await run({ loss }, { a: values, b: values })).loss[0], 0);
  const at = await run({ loss, slope }, { a: values, b: others });
  const step = 1e-6;
  const moved = values.map((v, i) => v + step * at.slope[i]);
  const after = await run({ loss }, { a: moved, b: others });
  const squared = at.slope.reduce((sum, v) => sum + v * v, 0);
  assert.ok(Math.abs((after.loss[0] - at.loss[0]) / step / squared - 1) < 1e-6);
});

test.run();
