// Moments in the host's memory, on the CPU (or the device that REFL_TEST_DEVICE names): an update in parts gives the bits of a whole one.
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { TypedArray } from '../../../lib/graph/dtype.ts';
import { grad } from '../../../lib/graph/grad.ts';
import { mul } from '../../../lib/graph/ops/elementwise.ts';
import { mean } from '../../../lib/graph/ops/reduce.ts';
import { input } from '../../../lib/graph/tensor.ts';
import { initialize } from '../../../lib/nn/init.ts';
import { Linear } from '../../../lib/nn/layers.ts';
import { Module } from '../../../lib/nn/module.ts';
import { type Device, openDevice } from '../../../lib/runtime/index.ts';
import { Learner } from '../../../lib/train/learner.ts';
import { type ReflOptions, type ReflStart, trainRefl } from '../../../lib/train/refl/refl.ts';
import { readTensor } from '../../../lib/weights/read.ts';
import { openSafetensors } from '../../../lib/weights/safetensors.ts';
import { temporaryFolder } from '../../restore/support.ts';
import { sameBits } from '../../support/assert.ts';
import { type Kind, made, options, pairs } from './small.ts';

const test = suite<{ device: Device }>('offload', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice(process.env.REFL_TEST_DEVICE ?? 'cpu', { threads: 1 });
});
test.after(({ device }) => device.dispose());
const folder = temporaryFolder();

async function train(device: Device, kind: Kind, changed: Partial<ReflOptions> & { out: string }) {
  const { models, parameters } = await made(device, kind);
  const starts: ReflStart[] = [];
  const path = await trainRefl(
    device,
    parameters,
    pairs,
    models,
    { ...options, steps: 2, ...changed },
    { onStart: (start) => starts.push(start) },
  );
  models.trainee.dispose();
  parameters.dispose();
  const file = await openSafetensors(path!);
  const state = new Map<string, TypedArray>();
  for (const key of file.entries.keys()) state.set(key, await readTensor(file, key));
  return { start: starts[0], state };
}

for (const kind of ['diffbir', 'osediff'] as const) {
  test(`${kind}: a run with moments in the host's memory is the run without, and either goes on as the other`, async ({
    device,
  }) => {
    const at = (name: string): string => join(folder, `${kind}-${name}`);
    const plain = await train(device, kind, { out: at('plain') });
    const away = await train(device, kind, { out: at('away'), offload: true });
    assert.is(plain.start.hostBytes, 0);
    assert.ok(away.start.hostBytes > 0);
    // What is away is not on the device, but for buffers to pass through.
    const saved = plain.start.stateBytes - away.start.stateBytes;
    assert.ok(saved > 0 && saved < away.start.hostBytes, `${saved} of ${away.start.hostBytes}`);
    await train(device, kind, { out: at('both'), offload: true, steps: 1 });
    const both = await train(device, kind, { out: at('both') });
    for (const { state } of [away, both]) {
      assert.equal([...state.keys()], [...plain.state.keys()]);
      for (const [key, values] of plain.state) sameBits(state.get(key)!, values, key);
    }
    assert.ok(plain.state.get([...plain.state.keys()].find((key) => key.includes('.m.'))!)!.some((v) => v !== 0));
  });
}

/** Nothing but matrices, as adapters are. */
class Matrices extends Module {
  readonly layers = [0, 1, 2].map(() => new Linear(3, 3, { bias: false }));
}

test('where only matrices train all of their moments are away, and a gradient that is not finite changes nothing', async ({
  device,
}) => {
  const results: TypedArray[][] = [];
  for (const offload of [false, true]) {
    using parameters = device.parameters();
    const module = new Matrices();
    await initialize(device, parameters, module, 3n);
    const learner = new Learner(module, { weightDecay: 0.1, clip: 0.5, average: false, offload });
    await learner.create(parameters);
    const x = module.layers.reduce((h, layer) => layer.forward(h), input('x', [2, 3]));
    const loss = mean(mul(x, x));
    const graph = { outputs: { loss }, gradients: grad(loss, learner.weights) };
    using programs = await learner.compile(device, parameters, graph, 1);
    const update = async (step: number, x: number): Promise<number> => {
      await programs.add({ x: Float32Array.of(1, 2, 3, 4, 5, x) }, 0);
      return programs.update(step, 0.1);
    };
    await update(1, 6);
    await update(2, -3);
    const read = async (): Promise<TypedArray[]> => {
      const store = learner.offload ?? parameters;
      const leaves = [...learner.leaves.values()];
      return Promise.all(leaves.map((leaf) => (store.has(leaf) ? store : parameters).read(leaf)));
    };
    results.push(await read());
    assert.is(Number.isFinite(await update(3, Infinity)), false);
    for (const [i, values] of (await read()).entries()) sameBits(values, results.at(-1)![i], `${i}`);
  }
  for (const [i, values] of results[1].entries()) sameBits(values, results[0][i], `${i}`);
});

test.run();
