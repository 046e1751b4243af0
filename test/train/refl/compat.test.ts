// The published code's flaws, where they are asked for, and what of them shows.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Draws } from '../../../lib/data/draws.ts';
import type { TypedArray } from '../../../lib/graph/dtype.ts';
import { SwinIR } from '../../../lib/models/swinir.ts';
import { type Device, openDevice } from '../../../lib/runtime/index.ts';
import { Session, type SessionOptions, type StepFigures, type StepImages } from '../../../lib/train/refl/session.ts';
import { ControlLDMTrainee } from '../../../lib/train/refl/trainees.ts';
import { tinyDiffBIR } from '../../restore/latent_support.ts';
import { close, sameBits } from '../../support/assert.ts';
import { codeOf } from '../../support/runtime.ts';
import { made, options, pairs, side } from './small.ts';
import { fill, networks, numbers, tokens } from './support.ts';

const test = suite<{ device: Device }>('refl compat', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu');
});
test.after(({ device }) => device.dispose());

/** One step of the network on some images: its figures, and the first moments, which are the mean gradient but for a factor. */
async function stepped(device: Device, images: StepImages, changed: Partial<SessionOptions>) {
  const { models, parameters } = await made(device, 'network');
  using session = new Session(models, { ...options, moving: { ...options.moving!, every: 1 }, ...changed });
  await session.create(parameters);
  await session.compile(device, parameters, side);
  const figures: StepFigures = await session.step(0, images);
  const moments: TypedArray[] = [];
  for (const [key, leaf] of session.leaves) {
    if (key.startsWith('restorer.m.')) moments.push(await parameters.read(leaf));
  }
  parameters.dispose();
  return { figures, moments: Float64Array.from(moments.flatMap((values) => Array.from(values, Number))) };
}

test('of the batches of a step only the last one counts, and the judge sees images that are not antialiased', async ({
  device,
}) => {
  const size = side * side * 3;
  const four = await pairs.batch(0, 4);
  const last = { degraded: four.degraded.slice(3 * size), clean: four.clean.slice(3 * size) };
  const official = await stepped(device, four, { batch: 1, accumulate: 4, compat: 'official' });
  const alone = await stepped(device, last, { batch: 1, accumulate: 1, compat: 'official' });
  close(
    official.moments,
    alone.moments.map((v) => v / 4),
    1e-6,
    'a quarter of the gradient of the last image',
  );
  assert.equal(official.figures.judge, alone.figures.judge);
  const corrected = await stepped(device, last, { batch: 1, accumulate: 1 });
  assert.equal(corrected.figures.losses, alone.figures.losses);
  assert.is.not(corrected.figures.judge!.loss, alone.figures.judge!.loss);
  const all = await stepped(device, four, { batch: 1, accumulate: 4 });
  assert.ok(Math.abs(all.figures.norm / official.figures.norm - 1) > 0.1);
});

test('the frozen ControlNet runs on all steps of a walk, which changes no bit of it', async ({ device }) => {
  const { model, frozen } = networks('f32');
  const stage1 = new SwinIR(tinyDiffBIR.stage1);
  using parameters = device.parameters();
  fill(parameters, model, 1);
  fill(parameters, stage1, 600, true);
  const context = { values: numbers(8, tokens * 6) as Float32Array, shape: [tokens, 6] };
  const walk = { steps: 4, traced: 1, eta: 'uniform', ends: 2 } as const;
  const parts = { model, stage1, frozen, side, context, walk };
  const create = (compat?: 'official') => ControlLDMTrainee.create(device, parameters, { ...parts, compat });
  // Without values a network cannot run.
  assert.is(await codeOf(() => create('official')), 'ERR_PROGRAM');
  const corrected = await create();
  fill(parameters, frozen, 900, true);
  const official = await create('official');
  assert.ok(official.peakBytes > corrected.peakBytes);
  const degraded = (await pairs.batch(0, 1)).degraded;
  const entered = async (trainee: ControlLDMTrainee) => (await trainee.enter([{ degraded, draws: new Draws(1, 2) }])).x;
  sameBits((await entered(official)) as Float32Array, (await entered(corrected)) as Float32Array, 'the state');
  for (const trainee of [official, corrected]) trainee.dispose();
});

test.run();
