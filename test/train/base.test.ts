import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { openDevice } from '../../lib/runtime/index.ts';
import { type BaseOptions, type BaseStep, baseConfig, trainBase } from '../../lib/train/base.ts';

const test = suite('train base');

const config = {
  ...baseConfig,
  size: 32,
  unet: { ...baseConfig.unet, model_channels: 32, channel_mult: [1, 1], attention_resolutions: [2], context_dim: 16 },
};
const options = { config, steps: 12, batch: 2, lr: 0.05, seed: 5, checkpointEvery: 4 };

/** Smooth gradients, and the same with a checkerboard on top: something a network can learn to undo. */
const pairs = {
  size: 32,
  async batch(step: number, count: number) {
    const clean = new Float32Array(count * 32 * 32 * 3);
    for (let i = 0; i < clean.length; i++) clean[i] = 0.5 + 0.3 * Math.sin(i * 0.001 * (1 + (step % 3)));
    const degraded = clean.map((v, i) => v + 0.1 * (Math.floor(i / 3) % 2 ? 1 : -1));
    return { degraded, clean };
  },
};

let folder: string;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'refl-train-'));
});
test.after(() => rm(folder, { recursive: true }));

async function train(name: string, stopAfter?: number): Promise<{ path?: string; steps: BaseStep[] }> {
  using device = await openDevice('cpu', { threads: 2 });
  const stop = new AbortController();
  const steps: BaseStep[] = [];
  const out: BaseOptions = { ...options, out: join(folder, name) };
  const path = await trainBase(device, pairs, out, {
    signal: stop.signal,
    onStep: (step) => {
      steps.push(step);
      if (step.step === stopAfter) stop.abort();
    },
  });
  return { path, steps };
}

test('the loss falls, and a run stopped and resumed ends with the same bits as one that never stopped', async () => {
  const whole = await train('whole');
  assert.is(whole.steps.length, 12);
  const psnr = whole.steps.map(({ loss }) => -loss);
  assert.ok(Math.abs(psnr[0] - 20) < 2, `a checkerboard of 0.1 lies 20 dB off: ${psnr[0]}`);
  assert.ok(psnr[11] > psnr[0] + 1, `${psnr[0]} -> ${psnr[11]} dB`);

  const first = await train('parts', 5);
  assert.is(first.path, undefined);
  const rest = await train('parts');
  assert.is(rest.steps[0].step, 6);
  assert.equal(
    rest.steps.map((s) => s.loss),
    whole.steps.slice(5).map((s) => s.loss),
  );
  assert.ok((await readFile(rest.path!)).equals(await readFile(whole.path!)));
});

test('resuming with other options or another thread count is refused', async () => {
  using device = await openDevice('cpu', { threads: 1 });
  for (const change of [{}, { seed: 6 }]) {
    const error = await trainBase(device, pairs, { ...options, ...change, out: join(folder, 'whole') }).then(
      () => undefined,
      (e) => e,
    );
    assert.is(error?.code, 'ERR_CHECKPOINT');
  }
});

test.run();
