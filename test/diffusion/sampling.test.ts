import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { samplerSteps } from '../../lib/diffusion/samplers.ts';
import { NoiseSource, Sampling } from '../../lib/diffusion/sampling.ts';
import { alphasCumprod } from '../../lib/diffusion/schedule.ts';
import { openDevice } from '../../lib/runtime/index.ts';

const alphas = alphasCumprod();
const toy = (x: number, t: number): number => Math.tanh(0.7 * x - 0.0004 * t);

for (const name of ['spaced', 'dpm++_m2', 'edm_dpm++_3m_sde']) {
  test(`${name} on the device takes the steps of its numbers`, async () => {
    using device = await openDevice('cpu');
    using sampling = await Sampling.create(device, [1, 2, 2, 1]);
    using source = await NoiseSource.create(device, [1, 2, 2, 1]);
    const steps = samplerSteps(name, { alphas, prediction: 'v', steps: 6 });
    const start = await source.draw(7n, 0);
    const noises = await Promise.all(steps.map((_, i) => source.draw(7n, i + 1)));
    const asked: number[] = [];
    const reached: number[] = [];
    const end = await sampling.run({
      steps,
      start,
      predict: async (x, { timestep }) => x.map((v) => toy(v, timestep)),
      noise: async (i) => {
        asked.push(i);
        return noises[i];
      },
      onStep: (i) => reached.push(i),
    });
    assert.equal(reached, [0, 1, 2, 3, 4, 5]);
    assert.equal(
      asked,
      [0, 1, 2, 3, 4, 5].filter((i) => steps[i].next[2] > 0),
    );
    for (let k = 0; k < 4; k++) {
      let [x, before, earlier] = [start[k], 0, 0];
      for (const [i, { timestep, clean, next }] of steps.entries()) {
        const estimate = clean[0] * x + clean[1] * toy(x, timestep);
        x = next[0] * x + next[1] * estimate + next[2] * noises[i][k] + next[3] * before + next[4] * earlier;
        [before, earlier] = [estimate, before];
      }
      assert.ok(Math.abs(end[k] - x) < 2e-5 * Math.max(1, Math.abs(x)), `${end[k]} for ${x}`);
    }
  });
}

test('a correction of the last clean estimate is what the spaced sampler ends with', async () => {
  using device = await openDevice('cpu');
  using sampling = await Sampling.create(device, [3]);
  const end = await sampling.run({
    steps: samplerSteps('spaced', { alphas, prediction: 'eps', steps: 3 }),
    start: Float32Array.of(1, 2, 3),
    predict: async (x) => x,
    noise: async () => Float32Array.of(1, -1, 0.5),
    correct: async (clean, _, i) => (i === 2 ? Float32Array.of(4, 5, 6) : clean),
  });
  assert.equal([...end], [4, 5, 6]);
});

test('a start of another size is refused, and a network that fails fails the run', async () => {
  using device = await openDevice('cpu');
  using sampling = await Sampling.create(device, [3]);
  const options = {
    steps: samplerSteps('ddim', { alphas, prediction: 'eps', steps: 2 }),
    predict: async (): Promise<Float32Array> => {
      throw new Error('the network is gone');
    },
    noise: async () => new Float32Array(3),
  };
  const codeOf = (error: Error): unknown => (error as { code?: string }).code;
  const short = await sampling.run({ ...options, start: new Float32Array(2) }).catch((error: Error) => error);
  assert.is(codeOf(short as Error), 'ERR_SHAPE');
  const gone = await sampling.run({ ...options, start: new Float32Array(3) }).catch((error: Error) => error);
  assert.is((gone as Error).message, 'the network is gone');
});

test('noise repeats with its seed and index, and with nothing else', async () => {
  using device = await openDevice('cpu');
  using source = await NoiseSource.create(device, [64]);
  const first = await source.draw(231n, 3);
  assert.equal(await source.draw(231n, 3), first);
  for (const [seed, index] of [
    [231n, 4],
    [232n, 3],
    [231n + (1n << 32n), 3],
  ] as const) {
    assert.not.equal(await source.draw(seed, index), first);
  }
});

test.run();
