// timeout: 900 s
// Device emu:0, the CUDA backend and its kernels under the emulator (or the device that REFL_TEST_DEVICE names): every
// operator case of test/ops, forward and gradient, in float32 against float64 on the CPU; each program launched, recorded
// and replayed, with the same bits.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { fuse } from '../../lib/graph/fuse.ts';
import { reachable } from '../../lib/graph/grad.ts';
import { opTable } from '../../lib/graph/table.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { buildLibrary } from '../simt/build.ts';
import { close, sameBits } from '../support/assert.ts';
import { cases, feedsOf, run, trace, update, updates } from '../support/opgraph.ts';
import { codeOf } from '../support/runtime.ts';

const name = process.env.REFL_TEST_DEVICE ?? 'emu:0';
if (name === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();
const [cpu, cuda] = [await openDevice('cpu'), await openDevice(name)];
test.after(() => {
  cpu.dispose();
  cuda.dispose();
});

const ran = new Set(updates.map(({ op }) => op));
for (const c of cases) {
  const [exact, single] = [trace(c, 'f64'), trace(c, 'f32')];
  const singles = { ...single.results, ...single.gradients };
  const nodes = reachable(Object.values<Tensor>(fuse({ outputs: singles }).outputs));
  for (const { op } of nodes) ran.add(op);
  test(`${c.op}: ${c.name}`, async () => {
    if (nodes.some(({ outputs }) => outputs.some(({ dtype }) => dtype === 'f64'))) {
      assert.is(await codeOf(() => run(cuda, singles, [feedsOf(c, single, 'f32').all])), 'ERR_DTYPE');
      return;
    }
    const [reference] = await run(cpu, { ...exact.results, ...exact.gradients }, [feedsOf(c, exact, 'f64').all]);
    const feeds = feedsOf(c, single, 'f32').all;
    const [launched, recorded, replayed] = await run(cuda, singles, [feeds, feeds, feeds]);
    for (const key of Object.keys(singles)) {
      close(launched[key], reference[key], c.tolerance ?? 1e-5, `${key}, float32 against float64`);
      sameBits(recorded[key], launched[key], `${key}, recorded`);
      sameBits(replayed[key], launched[key], `${key}, replayed`);
    }
  });
}

for (const c of updates) {
  test(`${c.op}: ${c.name}`, async () => {
    const [exact, single] = [await update(cpu, c, 'f64'), await update(cuda, c, 'f32')];
    for (const name of Object.keys(c.parameters)) {
      close(single[name], exact[name], c.tolerance ?? 1e-5, `${name}, float32 against float64`);
    }
  });
}

test('every operator of the table is among these', () => {
  const operators = Object.entries(opTable).filter(([, { family }]) => family !== 'leaf');
  assert.equal(
    operators.map(([op]) => op).filter((op) => !ran.has(op)),
    [],
  );
});

test.run();
