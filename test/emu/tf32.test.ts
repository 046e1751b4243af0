// timeout: 600 s
// A device opened with tf32, emu:0 (or the one that REFL_TEST_DEVICE names): the cases of its operators in test/ops, forward
// and gradient, against float64, and that their operands are rounded while all else stays float32.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openDevice } from '../../lib/runtime/index.ts';
import { buildLibrary } from '../simt/build.ts';
import { close } from '../support/assert.ts';
import { cases, feedsOf, run, trace } from '../support/opgraph.ts';

const name = process.env.REFL_TEST_DEVICE ?? 'emu:0';
if (name === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();
const [cpu, exact, rounding] = [
  await openDevice('cpu'),
  await openDevice(name),
  await openDevice(name, { tf32: true }),
];
test.after(() => {
  for (const device of [cpu, exact, rounding]) device.dispose();
});

/** Half the distance between neighbours, relative to them. */
const unit = 2 ** -11;
const rounded = ['matmul', 'linear', 'conv2d'];

for (const c of cases.filter(({ op }) => [...rounded, 'attention'].includes(op))) {
  test(`${c.op}: ${c.name}`, async () => {
    const [double, single] = [trace(c, 'f64'), trace(c, 'f32')];
    const outputs = { ...single.results, ...single.gradients };
    const feeds = feedsOf(c, single, 'f32').all;
    const [reference] = await run(cpu, { ...double.results, ...double.gradients }, [feedsOf(c, double, 'f64').all]);
    const [[got], [true32]] = [await run(rounding, outputs, [feeds]), await run(exact, outputs, [feeds])];
    let largest = 0;
    for (const key of Object.keys(outputs)) {
      close(got[key], reference[key], 4 * unit, key);
      const values = got[key] as Float32Array;
      values.forEach((value, i) => {
        largest = Math.max(largest, Math.abs(value - Number(true32[key][i])));
      });
    }
    if (rounded.includes(c.op)) assert.ok(largest > 0, 'operands are rounded');
    else assert.is(largest, 0);
  });
}

test.run();
