// timeout: 900 s
// Training of face reward models: gradients that add up, what trains, judgement, and the same bits however a run is stopped.
// REFL_KILLS=20 kills a run that often instead of three times.
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { RewardModel } from '../../lib/reward/model.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { type FrmEvents, type FrmOptions, type FrmResult, type FrmStep, trainFrm } from '../../lib/train/frm.ts';
import { type Label, readLabels } from '../../lib/train/labels.ts';
import { Rounds } from '../../lib/train/preference_data.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import { temporaryFolder } from '../restore/support.ts';
import { tinyClip } from '../reward/support.ts';
import { relativeError } from '../support/assert.ts';
import { errorOf } from '../support/runtime.ts';
import { readEvents } from './events.ts';
import { tinyOptions, writeLightFaces } from './faces.ts';
import { child, type Kill, killOften, sameRun, stepsFor } from './killed.ts';

const test = suite('train frm');
const folder = temporaryFolder();
const path = await writeLightFaces(folder);
const { value: labels } = await readLabels(path);
const options = await tinyOptions(folder);

interface Run {
  result?: FrmResult;
  steps: FrmStep[];
  out: string;
}

async function train(
  name: string,
  change: Partial<FrmOptions> = {},
  events: FrmEvents = {},
  some: readonly Label[] = labels,
  threads = 1,
): Promise<Run> {
  using device = await openDevice('cpu', { threads });
  const steps: FrmStep[] = [];
  const out = join(folder, name);
  const result = await trainFrm(
    device,
    some,
    { ...options, ...change, out },
    {
      ...events,
      onStep: (step) => {
        steps.push(step);
        events.onStep?.(step);
      },
    },
  );
  return { result, steps, out };
}

async function tensors(file: string): Promise<Map<string, Float32Array>> {
  const opened = await openSafetensors(file);
  const read = await Promise.all(
    [...opened.entries.keys()].map(
      async (key) => [key, Float32Array.from((await readTensor(opened, key)) as Float32Array)] as const,
    ),
  );
  return new Map(read);
}

let whole: Run;

test('a tiny CLIP learns which picture is preferred, and what did best is a reward model', async () => {
  const judged: { step: number; accuracy: number; best: boolean }[] = [];
  whole = await train(
    'whole',
    {},
    {
      onStart: (start) => {
        assert.equal([start.pairs, start.heldOut, start.from], [72, 24, 0]);
        assert.ok(start.trained < start.parameters && start.peakBytes > 0);
      },
      onJudged: (step, { accuracy }, best) => judged.push({ step, accuracy: accuracy.share, best }),
    },
  );
  assert.equal(
    judged.map(({ step }) => step),
    [10, 20, 30, 40],
  );
  const { best, last } = whole.result!;
  assert.ok(best.accuracy >= 0.9, JSON.stringify(judged));
  assert.is(best.accuracy, Math.max(...judged.map(({ accuracy }) => accuracy)));
  assert.is(best.step, judged.filter((j) => j.best).at(-1)!.step);
  assert.ok(whole.steps[39].loss < whole.steps[0].loss);
  const rates = whole.steps.map(({ lr }) => lr);
  assert.ok(Math.abs(rates[0] - 0.002) < 1e-12 && rates[4] === 0.01 && rates[5] === 0.01 && rates[39] < 1e-4);

  // What the reward model says of the held-out pairs is what was reported.
  using model = await RewardModel.load({ weights: last.path, tokenizer: options.tokenizer, device: 'cpu', threads: 1 });
  const held = labels.filter(({ split }) => split === 'heldout');
  const scores = async (side: 'a' | 'b') =>
    model.score(
      held.map((label) => label[side]),
      held.map(({ caption }) => caption!),
    );
  const [a, b] = [await scores('a'), await scores('b')];
  const right = held.filter(({ share }, i) => a[i].score > b[i].score === share > 0.5).length;
  assert.ok(Math.abs(right / held.length - judged[3].accuracy) < 0.05, `${right} of ${held.length}`);
});

test('only the unlocked part changes, and matrices alone decay', async () => {
  const before = await tensors(options.from as string);
  const after = await tensors(whole.result!.last.path);
  const state = await openSafetensors(join(whole.out, 'step-00000040.safetensors'));
  const trained = [...state.entries.keys()].filter((key) => /^(m|v)\./.test(key)).map((key) => key.slice(2));
  for (const [key, values] of before) {
    const moved = relativeError(after.get(key)!, values);
    if (trained.includes(key)) assert.ok(moved > 1e-4, `${key} stands still`);
    else assert.ok(moved < 1e-3, `${key} is locked and moved by ${moved}: more than float16 rounds`);
  }
  assert.ok(trained.includes('logit_scale') && !trained.includes('token_embedding.weight'));
  assert.ok(after.get('logit_scale')![0] <= Math.fround(Math.log(100)));
});

test('a step of two batches equals one of a batch of both', async () => {
  // Sums of other sizes round differently, and Adam's first steps turn small gradients into signs: a few steps, loosely.
  const split = await train('split', { steps: 3, batch: 4, accumulate: 3 });
  const joined = await train('joined', { steps: 3, batch: 12, accumulate: 1 });
  for (const [i, { loss, norm }] of joined.steps.entries()) {
    assert.ok(Math.abs(split.steps[i].loss - loss) < 2e-5 * loss, `loss ${i}`);
    assert.ok(Math.abs(split.steps[i].norm - norm) < 1e-3 * norm, `norm ${i}`);
  }
  const moments = ['split', 'joined'].map((name) => tensors(join(folder, name, 'step-00000003.safetensors')));
  const [a, b] = await Promise.all(moments);
  assert.ok(relativeError(a.get('m.visual.proj')!, b.get('m.visual.proj')!) < 1e-2);
});

test('recompute changes no bit; averages are judged and shipped where they are kept', async () => {
  const again = await train('recompute', { recompute: true, steps: 6 });
  const plain = await train('plain', { steps: 6 });
  assert.equal(
    again.steps.map(({ loss }) => loss),
    plain.steps.map(({ loss }) => loss),
  );
  const averaged = await train('average', { average: true, steps: 6 });
  assert.equal(
    averaged.steps.map(({ loss }) => loss),
    plain.steps.map(({ loss }) => loss),
  );
  const [weights, averages] = await Promise.all([plain, averaged].map(({ result }) => tensors(result!.last.path)));
  assert.ok(relativeError(averages.get('visual.proj')!, weights.get('visual.proj')!) > 1e-3);
  const state = await tensors(join(averaged.out, 'step-00000006.safetensors'));
  assert.ok(relativeError(averages.get('visual.proj')!, state.get('ema.visual.proj')!) < 1e-3);
});

test('a run that was stopped goes on to the same bits; another one is refused', async () => {
  const stop = new AbortController();
  const first = await train(
    'parts',
    {},
    {
      signal: stop.signal,
      onStep: ({ step }) => step === 12 && stop.abort(),
    },
  );
  assert.equal([first.result, first.steps.length], [undefined, 12]);
  assert.match((await errorOf(() => train('parts', {}, {}, labels, 2))).message, /threads: "1", now "2"/);
  const rest = await train('parts');
  assert.is(rest.steps[0].step, 13);
  await sameRun(rest.out, whole.out);
  const done = await train('parts');
  assert.equal([done.steps.length, done.result!.best.step], [0, whole.result!.best.step]);
  // Nothing is left to do that threads would change.
  assert.is((await train('parts', {}, {}, labels, 2)).steps.length, 0);
  await sameRun(rest.out, whole.out);
  for (const change of [{ seed: 1 }, { accumulate: 1 }, { weightDecay: 0 }]) {
    assert.is((await errorOf(() => train('parts', change))).code, 'ERR_CHECKPOINT');
  }
  const other = labels.map((label) => ({ ...label, share: 1 - label.share }));
  assert.is((await errorOf(() => train('parts', {}, {}, other))).code, 'ERR_CHECKPOINT');
  const picture = await readFile(labels[0].a);
  await writeFile(labels[0].a, await readFile(labels[0].b));
  assert.is((await errorOf(() => train('parts'))).code, 'ERR_CHECKPOINT');
  await writeFile(labels[0].a, picture);
});

test('a run killed at any moments goes on to the same bits', async () => {
  const kills = Number(process.env.REFL_KILLS ?? 3);
  const steps = stepsFor(kills);
  const [reference, out] = [join(folder, 'alive'), join(folder, 'killed')];
  const run = (out: string, kill?: Kill): Promise<boolean> => {
    return child('frm', [path, JSON.stringify({ ...options, turn: true, steps, patience: undefined, out })], kill);
  };
  assert.ok(await run(reference));
  await killOften(kills, (kill) => run(out, kill));
  await sameRun(out, reference);

  // What TensorBoard makes of the files: each forgets what those before it said of its first step and later ones.
  const curve = new Map<number, number>();
  for (const name of (await readdir(out)).filter((n) => n.includes('tfevents')).sort()) {
    for (const { step, session, values } of readEvents(await readFile(join(out, name)))) {
      if (session) for (const known of curve.keys()) if (known >= step) curve.delete(known);
      if ('train/loss' in values) curve.set(step, values['train/loss']);
    }
  }
  assert.equal(
    [...curve.keys()],
    Array.from({ length: steps }, (_, i) => i + 1),
  );
});

test('training ends where nothing gets better for long, and says so again', async () => {
  const { result, steps } = await train('early', { lr: 1e-9, patience: 2, steps: 90 });
  assert.is(result!.best.step, steps.length - 20);
  assert.ok(steps.length < 90);
  assert.is((await train('early', { lr: 1e-9, patience: 2, steps: 90 })).steps.length, 0);
});

test('a model can be drawn anew, and trains whole', async () => {
  const { steps } = await train('anew', { from: tinyClip, unlocked: 'all', steps: 10, lr: 0.003 });
  assert.ok(steps[9].loss < steps[0].loss);
  const [a, b] = await Promise.all(
    [4, 10].map((steps) => train(`anew${steps}`, { from: tinyClip, unlocked: 'all', steps })),
  );
  assert.is(a.steps[0].loss, b.steps[0].loss);
});

test('data that cannot be trained on are refused', async () => {
  const refused = async (some: Label[], code: string, message: RegExp, change: Partial<FrmOptions> = {}) => {
    const error = await errorOf(() => train('refused', change, {}, some));
    assert.is(error.code, code, error.stack);
    assert.match(error.message, message);
  };
  const people = labels.map((label) => ({ ...label, split: 'train' as const }));
  await refused(people, 'ERR_DATA', /people decided no pair of held-out people/);
  await refused(labels, 'ERR_DATA', /no pair to train on is decided/, { onlyPeople: true });
  await refused(
    labels.map((label) => ({ ...label, share: 0.5 })),
    'ERR_DATA',
    /no pair to train on is decided/,
  );
  const mute = labels.map(({ caption: _, ...label }) => label);
  await refused(mute, 'ERR_DATA', /the pair 0-01 has no caption/);
  await writeFile(join(folder, 'faces', 'bad.png'), 'no picture');
  const bad = labels.map((label) => ({ ...label, a: join(folder, 'faces', 'bad.png') }));
  await refused(bad, 'ERR_IMAGE', /bad\.png/);
  await refused(labels, 'ERR_WEIGHTS', /not finite/, { lr: 1e30, warmup: 1, steps: 10 });
});

test('rounds hold every item once, in an order that differs', () => {
  const rounds = new Rounds(['a', 'b', 'c', 'd', 'e'], 3);
  const places = rounds.take(0, 15);
  for (const round of [0, 1, 2]) {
    assert.equal(places.slice(5 * round, 5 * round + 5).sort(), ['a', 'b', 'c', 'd', 'e']);
  }
  assert.equal(new Rounds(['a', 'b', 'c', 'd', 'e'], 3).take(7, 6), places.slice(7, 13));
  assert.not.equal(new Rounds(['a', 'b', 'c', 'd', 'e'], 4).take(0, 15), places);
});

test.run();
