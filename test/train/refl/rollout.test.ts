import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Draws } from '../../../lib/data/draws.ts';
import { NoiseSource } from '../../../lib/diffusion/sampling.ts';
import { alphasCumprod, leadingTimesteps } from '../../../lib/diffusion/schedule.ts';
import { input } from '../../../lib/graph/tensor.ts';
import { type Device, evaluate, openDevice } from '../../../lib/runtime/index.ts';
import { drawWalk, paperWalk, Rollout } from '../../../lib/train/refl/rollout.ts';
import { close, sameBits } from '../../support/assert.ts';
import { fill, networks, numbers, sides, tokens } from './support.ts';

const test = suite<{ device: Device }>('rollout', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu');
});
test.after(({ device }) => device.dispose());

const shape = [sides.latent, sides.latent, 2];
const size = shape.reduce((a, b) => a * b, 1);
const condition = { hint: numbers(1, size) as Float32Array, context: numbers(2, tokens * 6) as Float32Array };

test("the paper's walks end at t = 1 or 21 as often, with an eta of their own for every step", () => {
  const ends = new Map<number, number>();
  const fresh = new Set<number>();
  for (let i = 0; i < 400; i++) {
    const walk = drawWalk(new Draws(231, i), paperWalk);
    assert.equal(
      walk.map(({ timestep }) => timestep),
      leadingTimesteps(50)
        .slice(50 - walk.length)
        .reverse(),
    );
    const end = walk[walk.length - 1].timestep;
    ends.set(end, (ends.get(end) ?? 0) + 1);
    if (i < 4) for (const { next } of walk) fresh.add(next[2]);
  }
  assert.equal([...ends.keys()].sort(), [1, 21]);
  assert.ok(Math.abs(ends.get(1)! - 200) < 60, `${ends.get(1)} of 400 end at 1`);
  assert.ok(fresh.size > 190, `${fresh.size} deviations`);
  const [first, again] = [drawWalk(new Draws(231, 5), paperWalk), drawWalk(new Draws(231, 5), paperWalk)];
  assert.equal(first, again);
});

test('a walk from the condition leaves the steps before it out, and one that is too short is refused', () => {
  const walk = drawWalk(new Draws(1), { ...paperWalk, eta: 0, ends: 1, from: 400 });
  assert.equal([walk[0].timestep, walk.length], [381, 20]);
  assert.throws(
    () => drawWalk(new Draws(1), { ...paperWalk, steps: 4, traced: 5, ends: 1 }),
    (error: Error & { code: string }) => error.code === 'ERR_OPTION',
  );
});

test('an image enters its last step where walking it by hand leads, the same bits each time', async ({ device }) => {
  const { model } = networks('f32');
  using parameters = device.parameters();
  fill(parameters, model, 1);
  using rollout = await Rollout.create(device, parameters, model, { latent: shape, context: [tokens, 6] });
  using noise = await NoiseSource.create(device, [1, ...shape]);
  const options = { ...paperWalk, steps: 5, ends: 1 };
  const walk = drawWalk(new Draws(3), options);
  const one = await rollout.enter(condition, walk, options, 77n);
  sameBits((await rollout.enter(condition, walk, options, 77n)).x, one.x, 'twice');
  assert.equal([one.steps.length, one.steps[0].timestep, one.noise.length], [1, 1, 0]);

  const two = await rollout.enter(condition, walk, { ...options, traced: 2 }, 77n);
  assert.equal([two.steps.length, two.noise.length], [2, 1]);
  sameBits(two.noise[0], await noise.draw(77n, 4), 'the noise of the first step that has a gradient');
  const [{ timestep, clean, next }] = two.steps;
  const batch = [1, ...shape];
  const fed = { hint: input('hint', batch), context: input('context', [1, tokens, 6]) };
  const predicted = model.predict(input('x', batch), input('timesteps', [1], 'i32'), fed);
  const feeds = { x: two.x, timesteps: Int32Array.of(timestep), ...condition };
  const { output } = await evaluate(device, { output: predicted }, feeds, parameters);
  const stepped = two.x.map((v, i) => {
    return next[0] * v + next[1] * (clean[0] * v + clean[1] * Number(output[i])) + next[2] * two.noise[0][i];
  });
  close(one.x, stepped, 1e-5, 'one step further by hand');
  const none = await rollout.enter(condition, walk, { ...options, traced: 5 }, 77n);
  sameBits(none.x, await noise.draw(77n, 0), 'where the whole walk has gradients it begins with noise');

  const mixed = await rollout.enter(condition, walk, { traced: 5, from: 801 }, 77n);
  const alpha = alphasCumprod()[801];
  const expected = none.x.map((v, i) => Math.sqrt(alpha) * condition.hint[i] + Math.sqrt(1 - alpha) * v);
  close(mixed.x, expected, 1e-6, 'from the condition');
});

test.run();
