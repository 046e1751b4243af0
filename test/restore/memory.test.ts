// DiffBIR at full size on the null device, which plans and computes nothing: what its programs would need, whole and in tiles.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { affine, full } from '../../lib/graph/ops/elementwise.ts';
import { slice } from '../../lib/graph/ops/layout.ts';
import { ControlLDM, diffbir } from '../../lib/models/diffbir.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import { DiffBIRModel, diffbirVersions } from '../../lib/restore/diffbir.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { openDevice, type Program } from '../../lib/runtime/index.ts';
import { failure } from './support.ts';

const side = 512;

/** The largest program of a restoration, in bytes, and how many there are. */
async function largestOf(memory: number): Promise<{ peak: number; programs: number }> {
  using device = await openDevice('null');
  const stages = new Stages(device, memory);
  const [model, stage1] = [new ControlLDM(diffbir), new SwinIR(diffbir.stage1)];
  for (const network of [model, stage1]) {
    for (const { value } of network.namedParameters().values()) stages.parameters.add(value, { frozen: true });
  }
  const compiled: Program[] = [];
  const compile = device.compile.bind(device);
  device.compile = async (...graph) => {
    const program = await compile(...graph);
    compiled.push(program);
    return program;
  };
  const restorer = new DiffBIRModel({ name: 'full', stages }, diffbirVersions.v1, stage1, model);
  const image = { width: side, height: side, data: new Uint8Array(side * side * 3) };
  // Of a device that computes nothing no result is finite: that is found out at the very end.
  const error = await failure(restorer.restore([image], { batch: 1, seed: 0, steps: 1 }));
  assert.match(error.message, /not finite/);
  restorer.dispose();
  return { peak: Math.max(...compiled.map(({ peakBytes }) => peakBytes)), programs: compiled.length };
}

test('a face restores in few programs where there is memory, and in small ones where there is not', async () => {
  const whole = await largestOf(8e9);
  assert.ok(whole.programs < 10 && whole.peak > 4e8, JSON.stringify(whole));
  const tiled = await largestOf(1.5e8);
  assert.ok(tiled.peak <= 1.5e8, JSON.stringify(tiled));
});

test('programs that were used longest ago make room for others, and are compiled again when they are needed', async () => {
  using device = await openDevice('null');
  const stages = new Stages(device, 0);
  let compiled = 0;
  const compile = device.compile.bind(device);
  device.compile = (...graph) => {
    compiled++;
    return compile(...graph);
  };
  // Half a gigabyte each, of which a gigabyte is kept.
  const run = (key: string) =>
    stages.run(key, () => ({ y: slice(affine(full([2 ** 27 - 2 ** 20], 1), 2), [0], [1]) }), {});
  for (const key of ['a', 'b', 'a', 'b']) await run(key);
  assert.is(compiled, 2);
  await run('c');
  await run('b');
  assert.is(compiled, 3);
  await Promise.all([run('a'), run('a')]);
  assert.is(compiled, 4);
  stages.dispose();
});

test.run();
