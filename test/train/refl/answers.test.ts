// What a run does about alarms: it pauses, goes back, or is held tighter.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { PairSource } from '../../../lib/data/pairs.ts';
import { square, sub } from '../../../lib/graph/ops/elementwise.ts';
import { mean } from '../../../lib/graph/ops/reduce.ts';
import { frmReward, type Judged } from '../../../lib/reward/reward.ts';
import { type Device, openDevice } from '../../../lib/runtime/index.ts';
import { type ReflObservation, type ReflOptions, type ReflStep, trainRefl } from '../../../lib/train/refl/refl.ts';
import { type Course, learnsIn, type MovingOptions, Session } from '../../../lib/train/refl/session.ts';
import { Validation } from '../../../lib/train/refl/validation.ts';
import { temporaryFolder } from '../../restore/support.ts';
import { made, options, pairs, side } from './small.ts';

const test = suite<{ device: Device }>('refl answers', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu', { threads: 1 });
});
test.after(({ device }) => device.dispose());
const folder = temporaryFolder();

interface Run {
  error: (Error & { code?: string }) | undefined;
  steps: ReflStep[];
  looks: ReflObservation[];
  drawn: number[];
}

/** Trains the network at a rate at which it soon leaves the photographs' colours, and looks at it after every step. */
async function train(device: Device, out: string, changed: Partial<ReflOptions>, stopAfter?: number): Promise<Run> {
  const { models, parameters } = await made(device, 'network');
  const held = { held: await pairs.batch(1000, 2), side };
  const distances = {
    mse: ({ images, targets }: Judged) => mean(square(sub(images, targets)), [1, 2, 3]),
  };
  using validation = await Validation.create(
    device,
    parameters,
    { ...models, reward: frmReward(models.judge), distances },
    held,
  );
  const run: Run = { error: undefined, steps: [], looks: [], drawn: [] };
  const source: PairSource = {
    size: pairs.size,
    batch(step, count) {
      run.drawn.push(step);
      return pairs.batch(step, count);
    },
  };
  const stop = new AbortController();
  const whole = { ...options, steps: 8, validateEvery: 1, checkpointEvery: 1, lr: 0.3, ...changed, out };
  const events = {
    signal: stop.signal,
    onStep: (step: ReflStep) => {
      run.steps.push(step);
      if (run.steps.length === stopAfter) stop.abort();
    },
    onObserved: (look: ReflObservation) => run.looks.push(look),
  };
  run.error = await trainRefl(device, parameters, source, { ...models, validation }, whole, events).then(
    () => undefined,
    (error) => error,
  );
  parameters.dispose();
  return run;
}

const numbers = ({ steps }: Run): number[] => steps.map(({ step }) => step);

test('a pause keeps the state, and the same command goes on', async ({ device }) => {
  const out = join(folder, 'pause');
  const first = await train(device, out, { onAlarm: 'pause' });
  assert.is(first.error?.code, 'ERR_ALARM');
  const at = first.steps.length;
  assert.match(first.error!.message, `paused after step ${at}`);
  assert.ok(at < 8 && first.looks.at(-1)!.answer === 'pause' && first.looks.at(-2)!.answer === undefined);
  const second = await train(device, out, { onAlarm: 'warn' });
  assert.equal(second.error, undefined);
  assert.equal(
    numbers(second),
    Array.from({ length: 8 - at }, (_, i) => at + 1 + i),
  );
});

test('a rollback goes to the last look without alarms, another way, at half the rate; the third is the last', async ({
  device,
}) => {
  const [whole, parts] = ['back', 'back-parts'].map((name) => join(folder, name));
  const run = await train(device, whole, { onAlarm: 'rollback', lr: 3, steps: 40 });
  const answers = run.looks.flatMap(({ answer }) => answer ?? []);
  assert.equal(answers, ['rollback', 'rollback', 'rollback', 'pause']);
  assert.is(run.error?.code, 'ERR_ALARM');
  for (const [i, { step, answer }] of run.looks.entries()) {
    if (answer !== 'rollback') continue;
    // The step after it is the one after the last good look.
    const good = run.looks
      .slice(0, i)
      .filter(({ alarms }) => !alarms.length)
      .at(-1)!.step;
    assert.is(run.looks[i + 1].step, good + 1, `after the alarm of step ${step}`);
  }
  assert.equal([...new Set(run.drawn.map((n) => Math.floor(n / 2 ** 24)))], [0, 1, 2, 3]);
  // Stopped after any of these steps it goes on to the same bits.
  const stopped = await train(device, parts, { onAlarm: 'rollback', lr: 3, steps: 40 }, run.steps.length - 1);
  assert.equal(stopped.error, undefined);
  const rest = await train(device, parts, { onAlarm: 'rollback', lr: 3, steps: 40 });
  assert.equal([...numbers(stopped), ...numbers(rest)], numbers(run));
  const last = `step-${String(run.steps.at(-1)!.step).padStart(8, '0')}.safetensors`;
  assert.ok((await readFile(join(parts, last))).equals(await readFile(join(whole, last))));
});

test('strengthened, the judge learns more often and drift costs more', async ({ device }) => {
  const course = (strength: number): Course => ({ judged: 0, branch: 0, strength });
  const learned = (moving: MovingOptions, strength: number): number[] =>
    Array.from({ length: 20 }, (_, i) => i + 1).filter((step) => learnsIn(step, moving, course(strength)));
  const moving = { ...options.moving!, every: 10 };
  assert.equal(learned(moving, 0), [10, 20]);
  assert.equal(learned(moving, 1), [5, 10, 15, 20]);
  assert.is(learned(moving, 4).length, 20);
  const during = [
    [1, 5],
    [12, Infinity],
  ] as const;
  assert.equal(learned({ ...moving, every: 2, during }, 0), [2, 4, 12, 14, 16, 18, 20]);

  const run = await train(device, join(folder, 'strong'), { onAlarm: 'strengthen', moving: { ...moving, every: 4 } });
  assert.equal(run.error, undefined);
  assert.equal(run.looks.flatMap(({ answer }) => answer ?? []).slice(0, 4), [
    'strengthen',
    'strengthen',
    'strengthen',
    'warn',
  ]);
  const often = run.steps.filter(({ judge }) => judge).length;
  assert.ok(often > 2, `the judge learned ${often} times`);

  const norms: number[] = [];
  for (const strength of [0, 1]) {
    const { models, parameters } = await made(device, 'diffbir');
    using session = new Session(models, { ...options, moving: undefined });
    await session.create(parameters);
    await session.compile(device, parameters, side);
    await session.step(0, await pairs.batch(0, 2));
    session.course.strength = strength;
    norms.push((await session.step(1, await pairs.batch(1, 2))).norms.drift);
    models.trainee.dispose();
    parameters.dispose();
  }
  assert.ok(norms[0] > 0 && Math.abs(norms[1] / norms[0] - 2) < 1e-5, `${norms}`);
});

test('where nothing can be strengthened that is refused', async ({ device }) => {
  const run = await train(device, join(folder, 'weak'), { onAlarm: 'strengthen', moving: undefined });
  assert.is(run.error?.code, 'ERR_OPTION');
});

test.run();
