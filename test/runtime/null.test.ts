import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { grad } from '../../lib/graph/grad.ts';
import { square } from '../../lib/graph/ops/elementwise.ts';
import { broadcastTo } from '../../lib/graph/ops/layout.ts';
import { mean } from '../../lib/graph/ops/reduce.ts';
import { lower } from '../../lib/graph/program.ts';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import { sd21 } from '../../lib/models/latent.ts';
import { UNet } from '../../lib/models/unet.ts';
import { type Device, openDevice } from '../../lib/runtime/index.ts';
import { simulate } from '../support/simulate.ts';

// Stable Diffusion 2.1's UNet at its full size.
const unet = new UNet(sd21.unet);
const leaves = [...unet.namedParameters().values()].map(({ value }) => value);
const feeds = { x: new Float32Array(64 * 64 * 4), t: new Int32Array(1), context: new Float32Array(77 * 1024) };

const trace = (recompute = false): Tensor =>
  unet.forward(input('x', [1, 64, 64, 4]), input('t', [1], 'i32'), input('context', [1, 77, 1024]), { recompute });

/** Seconds that `fn` takes. */
function seconds(fn: () => void): number {
  const begun = performance.now();
  fn();
  return (performance.now() - begun) / 1000;
}

let device: Device;
test.before(async () => {
  device = await openDevice('null');
});
test.after(() => device.dispose());

test('the full UNet is traced and laid out in a moment, soundly, near what is live at once', () => {
  assert.is(unet.parameterCount, 865_910_724);
  let arena = 0;
  const lasts = seconds(() => {
    const graph = { outputs: { y: trace() } };
    const spec = lower(graph);
    arena = spec.arenaBytes;
    simulate(graph, spec);
  });
  assert.ok(lasts < 5, `took ${lasts} s`);
  assert.ok(arena < 100 * 2 ** 20, `${arena} bytes`);
});

test('so is its training step, and recompute keeps less of it', () => {
  const peak = (recompute: boolean): number => {
    const x = input('x', [1, 64, 64, 4]);
    const y = unet.forward(x, input('t', [1], 'i32'), input('context', [1, 77, 1024]), { recompute });
    const graph = { outputs: { dx: grad(mean(square(y)), [x])[0] } };
    const spec = lower(graph);
    simulate(graph, spec);
    return spec.arenaBytes;
  };
  let peaks: number[] = [];
  const lasts = seconds(() => {
    peaks = [false, true].map(peak);
  });
  assert.ok(lasts < 15, `took ${lasts} s`);
  assert.ok(peaks[1] < 0.5 * peaks[0], `${peaks[1]} bytes with recompute, ${peaks[0]} without`);
});

test('the null device runs it without touching its 3.4 GB', async () => {
  const before = process.memoryUsage().rss;
  const parameters = device.parameters();
  for (const leaf of leaves) parameters.add(leaf, { frozen: true });
  assert.is(parameters.bytes, 4 * 865_910_724);
  const program = await device.compile({ outputs: { y: trace() } }, { parameters });
  const { y } = await program.run(feeds);
  assert.is(y.length, 64 * 64 * 4);
  assert.ok(program.peakBytes > 0);
  assert.ok(process.memoryUsage().rss - before < 300 * 2 ** 20);
  program.dispose();
  parameters.dispose();
});

test('the null device takes programs beyond the memory of any machine', async () => {
  const huge = broadcastTo(input('x', [1]), [2 ** 40]);
  const program = await device.compile({ outputs: { y: mean(square(huge)) } });
  assert.ok(program.peakBytes >= 4 * 2 ** 40);
  assert.is((await program.run({ x: new Float32Array(1) })).y.length, 1);
  program.dispose();
});

test.run();
