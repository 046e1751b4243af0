// timeout: 900 s
// Device emu:0, the CUDA backend and its kernels under the emulator (or the device that REFL_TEST_DEVICE names): every
// operator case of test/ops, forward and gradient, in float32 against float64 on the CPU; each program launched, recorded
// and replayed, with the same bits.
import { readdirSync, readFileSync } from 'node:fs';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { reachable } from '../../lib/graph/grad.ts';
import { opTable } from '../../lib/graph/table.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { buildLibrary } from '../simt/build.ts';
import { close, sameBits } from '../support/assert.ts';
import { cases, feedsOf, run, trace, update, updates } from '../support/opgraph.ts';
import { codeOf } from '../support/runtime.ts';

/** Operators whose CUDA kernels are still to be written. */
const pending = new Set<string>(
  Object.entries(opTable)
    .filter(([, { family }]) => ['reduce'].includes(family))
    .map(([op]) => op),
);

const operators = Object.entries(opTable).filter(([, { family }]) => family !== 'leaf');

test('every operator has a CUDA binder in a file of its family, but for those still to be written', () => {
  const lacking = operators.filter(([op, { family }]) => {
    const folder = `cuda/${{ matmul: 'gemm' }[family] ?? family}`;
    const binder = `Bound bind${op[0].toUpperCase()}${op.slice(1)}(`;
    return !readdirSync('cuda', { recursive: true, encoding: 'utf8' })
      .map((name) => `cuda/${name}`)
      .some((name) => name.startsWith(folder) && name.endsWith('.cc') && readFileSync(name, 'utf8').includes(binder));
  });
  assert.equal(
    lacking.map(([op]) => op),
    operators.map(([op]) => op).filter((op) => pending.has(op)),
  );
});

const name = process.env.REFL_TEST_DEVICE ?? 'emu:0';
if (name === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();
const [cpu, cuda] = [await openDevice('cpu'), await openDevice(name)];
test.after(() => {
  cpu.dispose();
  cuda.dispose();
});

for (const c of cases) {
  const [exact, single] = [trace(c, 'f64'), trace(c, 'f32')];
  const singles = { ...single.results, ...single.gradients };
  const nodes = reachable(Object.values<Tensor>(singles));
  const waits = nodes.some(({ op }) => pending.has(op));
  (waits ? test.skip : test)(`${c.op}: ${c.name}`, async () => {
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

test.run();
