// Training by rewards as a whole, with small networks.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import type { TypedArray } from '../../../lib/graph/dtype.ts';
import { square, sub } from '../../../lib/graph/ops/elementwise.ts';
import { slice } from '../../../lib/graph/ops/layout.ts';
import { mean } from '../../../lib/graph/ops/reduce.ts';
import { frmReward, type Judged, type Reward } from '../../../lib/reward/reward.ts';
import { type Device, openDevice } from '../../../lib/runtime/index.ts';
import { rewardLoss } from '../../../lib/train/refl/objective.ts';
import { type ReflObservation, type ReflOptions, type ReflStep, trainRefl } from '../../../lib/train/refl/refl.ts';
import { type ReflModels, Session } from '../../../lib/train/refl/session.ts';
import { Validation } from '../../../lib/train/refl/validation.ts';
import { close, sameBits } from '../../support/assert.ts';
import { type Kind, kinds, made, options, pairs, side } from './small.ts';

const test = suite<{ device: Device; folder: string }>('refl', {} as { device: Device; folder: string });
test.before(async (context) => {
  context.device = await openDevice('cpu');
});
test.before.each(async (context) => {
  context.folder = await mkdtemp(join(tmpdir(), 'refl-train-'));
});
test.after.each(({ folder }) => rm(folder, { recursive: true }));
test.after(({ device }) => device.dispose());

const train = async (
  device: Device,
  kind: Kind,
  changed: Partial<ReflOptions> & { out: string },
  events: { signal?: AbortSignal; onStep?: (step: ReflStep) => void } = {},
): Promise<{ path: string | undefined; values: Map<string, TypedArray>; told: ReflStep[] }> => {
  const { models, parameters } = await made(device, kind);
  const told: ReflStep[] = [];
  const path = await trainRefl(
    device,
    parameters,
    pairs,
    models,
    { ...options, ...changed },
    {
      ...events,
      onStep: (step) => {
        told.push(step);
        events.onStep?.(step);
      },
    },
  );
  const values = new Map<string, TypedArray>();
  for (const module of [models.trainee.module, models.judge]) {
    for (const [key, { value }] of module.namedParameters()) values.set(key, await parameters.read(value));
  }
  models.trainee.dispose();
  parameters.dispose();
  return { path, values, told };
};

for (const kind of kinds) {
  test(`${kind}: what is stopped and goes on ends with the bits of what never stopped`, async ({ device, folder }) => {
    const [whole, parts] = ['whole', 'parts'].map((name) => join(folder, name));
    const once = await train(device, kind, { out: whole });
    // The first step restores with the values of the frozen copy.
    if (kind !== 'network') assert.equal([once.told[0].losses.drift, once.told[5].losses.drift > 0], [0, true]);
    const stop = new AbortController();
    const first = await train(
      device,
      kind,
      { out: parts },
      {
        signal: stop.signal,
        onStep: ({ step }) => step === 3 && stop.abort(),
      },
    );
    assert.is(first.path, undefined);
    const second = await train(device, kind, { out: parts });
    assert.equal(
      [...first.told, ...second.told].map(({ step }) => step),
      [1, 2, 3, 4, 5, 6],
    );
    for (const [key, value] of once.values) sameBits(second.values.get(key)!, value, key);
    assert.equal(
      (await readdir(parts)).filter((name) => name.startsWith('step-')),
      ['step-00000004.safetensors', 'step-00000006.safetensors'],
    );
  });
}

test('the judge moves away from what it is given, and the restorer towards the judge', async ({ device, folder }) => {
  const { models, parameters } = await made(device, 'network');
  const still = { ...models, terms: { reward: { ...models.terms.reward, weight: 1 } } };
  const seen: ReflStep[] = [];
  const run = { ...options, lr: 3e-3, steps: 40, out: folder, checkpointEvery: 100 };
  await trainRefl(
    device,
    parameters,
    pairs,
    still,
    { ...run, moving: undefined },
    { onStep: (step) => seen.push(step) },
  );
  const average = (values: number[]): number => values.reduce((a, b) => a + b, 0) / values.length;
  const rewards = seen.map(({ losses }) => losses.reward);
  const [before, after] = [average(rewards.slice(0, 8)), average(rewards.slice(-8))];
  assert.ok(after < before - 0.01, `1 less the reward went from ${before} to ${after}`);
  assert.ok(seen.every(({ judge }) => judge === undefined));

  const margins: number[] = [];
  const moved = { ...run, lr: 0, out: join(folder, 'moved'), moving: { ...options.moving!, every: 1, weight: 1 } };
  await trainRefl(device, parameters, pairs, still, moved, { onStep: ({ judge }) => margins.push(judge!.margin) });
  const [first, last] = [average(margins.slice(0, 8)), average(margins.slice(-8))];
  assert.ok(last > first + 0.05, `photographs were preferred by ${first}, then by ${last}`);
  models.trainee.dispose();
  parameters.dispose();
});

test("other people's rewards are functions of the graph, of which several may be weighed", async ({
  device,
  folder,
}) => {
  const { models, parameters } = await made(device, 'network');
  const part = (c: number): Reward => ({
    score: ({ images }) => mean(slice(images, [0, 0, 0, c], [images.shape[0], side, side, 1]), [1, 2, 3]),
  });
  const terms = {
    red: { weight: 1, loss: rewardLoss(part(0)) },
    blue: { weight: -0.5, loss: rewardLoss(part(2)) },
    green: { weight: 0, loss: rewardLoss(part(1)) },
  };
  const seen: ReflStep[] = [];
  const run = { ...options, out: folder, steps: 5, moving: undefined };
  await trainRefl(device, parameters, pairs, { ...models, terms }, run, { onStep: (step) => seen.push(step) });
  const [first, last] = [seen[0].losses, seen[4].losses];
  assert.ok(last.red < first.red - 0.01 && last.blue > first.blue + 0.01, JSON.stringify([first, last]));
  assert.equal(Object.keys(seen[0].norms), ['red', 'blue'], 'what has no weight is only told');
  assert.ok(Number.isFinite(first.green));
  models.trainee.dispose();
  parameters.dispose();
});

test('held-out images are looked at before, during and after, with pictures, and an alarm is raised against the first look', async ({
  device,
  folder,
}) => {
  const { models, parameters } = await made(device, 'network');
  const { degraded, clean } = await pairs.batch(1000, 3);
  const reward = frmReward(models.judge);
  const held = { held: { degraded, clean }, side };
  const distances = { mse: ({ images, targets }: Judged) => mean(square(sub(images, targets)), [1, 2, 3]) };
  const validated = { ...models, reward, independent: reward, distances };
  using validation = await Validation.create(device, parameters, validated, held);
  const seen: ReflObservation[] = [];
  const run = { ...options, out: folder, lr: 0.3, steps: 3, checkpointEvery: 2, validateEvery: 2, moving: undefined };
  const events = { onObserved: (observed: ReflObservation) => seen.push(observed) };
  await trainRefl(device, parameters, pairs, { ...models, validation }, run, events);
  assert.equal(
    seen.map(({ step }) => step),
    [0, 2, 3],
  );
  assert.equal(seen[0].alarms, []);
  const { distances: before, independent, reward: first } = seen[0].observation;
  const error = Math.hypot(...degraded.map((v, i) => v - clean[i])) ** 2 / degraded.length;
  assert.ok(Math.abs(before.mse / error - 1) < 1e-5, 'the network starts as the identity');
  assert.is(independent, first);
  const count = degraded.length / (3 * side ** 2);
  for (const { observation, each } of seen) {
    assert.equal([each.mse.length, each.reward.length], [count, count]);
    const mean = each.mse.reduce((sum, value) => sum + value) / count;
    assert.ok(Math.abs(mean / observation.distances.mse - 1) < 1e-12);
  }
  const firstError = Math.hypot(...degraded.map((v, i) => (i < side ** 2 * 3 ? v - clean[i] : 0))) ** 2;
  assert.ok(Math.abs((seen[0].each.mse[0] * side ** 2 * 3) / firstError - 1) < 1e-5, 'image by image');
  // So large a rate leaves nothing of the pictures.
  assert.ok(
    seen[2].alarms.some(({ detector }) => detector === 'colour'),
    JSON.stringify(seen[2]),
  );
  const { width, height, channels } = await sharp(seen[0].preview).metadata();
  assert.equal([width, height, channels], [3 * side, 3 * side, 3]);
  const grid = await sharp(seen[0].preview).raw().toBuffer();
  assert.is(grid[0], Math.round(255 * degraded[0]));
  assert.is(grid[3 * 2 * side], Math.round(255 * clean[0]));
  models.trainee.dispose();
  parameters.dispose();
});

test('a run goes on only as what it was, and one that went further is left as it is', async ({ device, folder }) => {
  const run = { out: folder, checkpointEvery: 2 };
  const first = await train(device, 'diffbir', { ...run, steps: 4 });
  assert.match(first.path!, 'step-00000004');
  assert.match((await train(device, 'diffbir', { ...run, steps: 2 })).path!, 'step-00000004');
  const refusal = async (change: (made: ReflModels) => ReflModels): Promise<string> => {
    const { models, parameters } = await made(device, 'diffbir');
    const error = await trainRefl(device, parameters, pairs, change(models), { ...options, ...run }).then(
      () => undefined,
      (thrown) => thrown,
    );
    models.trainee.dispose();
    parameters.dispose();
    return `${error?.code}: ${error?.message}`;
  };
  const other = (recipe: object) => (models: ReflModels) =>
    Object.assign(models, { trainee: Object.assign(models.trainee, { recipe }) });
  assert.match(
    await refusal(other({ form: 'controlled', walk: 'shorter' })),
    /^ERR_CHECKPOINT: .*recipe\.walk: none, now "shorter"/,
  );
  assert.match(
    await refusal((models) => ({ ...models, caption: Int32Array.of(10, 1, 1, 11, 0) })),
    /^ERR_CHECKPOINT: .*caption: \[10,3,4,11,0\], now \[10,1,1,11,0\]/,
  );
  assert.is(await refusal((models) => models), 'undefined: undefined');
});

test('two batches of one are a batch of two', async ({ device }) => {
  const [images, shapes] = [
    await pairs.batch(0, 2),
    [
      [1, 2],
      [2, 1],
    ] as const,
  ];
  const results: TypedArray[][] = [];
  for (const [batch, accumulate] of shapes) {
    const { models, parameters } = await made(device, 'diffbir');
    using session = new Session(models, { ...options, batch, accumulate });
    await session.create(parameters);
    await session.compile(device, parameters, side);
    await session.step(1, images);
    // First moments are the gradients, scaled. Weights would show AdamW's step, which makes as much of a rounding error as of a gradient.
    const moments = [...session.leaves].filter(([key]) => key.startsWith('restorer.m.'));
    results.push(await Promise.all(moments.map(([, leaf]) => parameters.read(leaf))));
    models.trainee.dispose();
    parameters.dispose();
  }
  const [apart, together] = results.map((all) =>
    Float64Array.from(all.flatMap((values) => Array.from(values, Number))),
  );
  close(apart, together, 1e-4, 'the mean gradient');
});

test.run();
