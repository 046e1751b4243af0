// Models that are opened for training by their names, beyond those that the command's own test trains.
import { mkdir, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Draws } from '../../../lib/data/draws.ts';
import { alphasCumprod, zeroTerminalSnr } from '../../../lib/diffusion/schedule.ts';
import { input } from '../../../lib/graph/tensor.ts';
import { partOf } from '../../../lib/models/parts.ts';
import { SwinIR } from '../../../lib/models/swinir.ts';
import { Stages } from '../../../lib/restore/stages.ts';
import { type Device, evaluate, openDevice } from '../../../lib/runtime/index.ts';
import { openTrainee } from '../../../lib/train/refl/open.ts';
import { drawWalk, paperWalk } from '../../../lib/train/refl/rollout.ts';
import { Session } from '../../../lib/train/refl/session.ts';
import { loadWeights } from '../../../lib/weights/load.ts';
import { openWeights } from '../../../lib/weights/open.ts';
import { readTensor } from '../../../lib/weights/read.ts';
import { writeSafetensors } from '../../../lib/weights/write.ts';
import { tensorsOf, tinyDiffBIR } from '../../restore/latent_support.ts';
import { diffbirFiles, writeOfficial } from '../../restore/official.ts';
import { temporaryFolder } from '../../restore/support.ts';
import { close } from '../../support/assert.ts';
import { errorOf } from '../../support/runtime.ts';
import { made, options, pairs, side } from './small.ts';

const test = suite<{ device: Device }>('refl open', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu', { threads: 1 });
});
test.after(({ device }) => device.dispose());
const folder = temporaryFolder();
const networks = join(folder, 'networks.json');
await writeFile(networks, JSON.stringify({ ...tinyDiffBIR, size: 32 }));

test('SwinIR by itself is a network that trains, and what is written is a first stage', async ({ device }) => {
  const weights = join(folder, 'swinir.safetensors');
  await writeSafetensors(weights, tensorsOf(new SwinIR(tinyDiffBIR.stage1), 4));
  const stages = new Stages(device);
  const how = { walk: paperWalk, recompute: true, networks, weights, side: 16 };
  const { trainee, side, drift, save } = await openTrainee(stages, 'swinir', how);
  assert.equal([side, drift, trainee.recipe], [16, 0, { form: 'network' }]);
  const degraded = Float32Array.from({ length: 16 * 16 * 3 }, (_, i) => 0.5 + 0.4 * Math.sin(i));
  const { images } = trainee.restore(1);
  const { y } = await evaluate(device, { y: images }, { degraded }, stages.parameters);

  const apart = new Stages(device);
  const held = await openTrainee(apart, 'swinir', { ...how, anchor: true });
  const [[own, frozen]] = held.trainee.restore(1).drift;
  const both = await evaluate(device, { own, frozen }, { degraded }, apart.parameters);
  close(both.own as Float32Array, y as Float32Array, 1e-5, 'what is held');
  close(both.frozen as Float32Array, y as Float32Array, 1e-5, 'what it is held to');
  assert.equal([held.drift, held.sources], [1, { restorer: weights, anchor: weights }]);
  apart.dispose();

  const path = await save(folder);
  const copy = new SwinIR(tinyDiffBIR.stage1).train(false);
  using parameters = device.parameters();
  await loadWeights(parameters, copy, await openWeights(path));
  const again = copy.forward(input('degraded', [1, 16, 16, 3]));
  const { y: written } = await evaluate(device, { y: again }, { degraded }, parameters);
  // Frozen weights are packed for other kernels.
  close(y as Float32Array, written as Float32Array, 1e-5, 'the written network');
  stages.dispose();
  const error = await errorOf(() => openTrainee(new Stages(device), 'swinir', { ...how, side: 20 }));
  assert.match(error.message, /multiples of 8 pixels, got 20/);
});

for (const compute of [undefined, 'bf16'] as const) {
  test(`adapters of DiffBIR's ControlNet train alone, and are written into its weights (${compute ?? 'f32'})`, async ({
    device,
  }) => {
    const weights = join(folder, `lora-${compute}`);
    await mkdir(weights);
    await writeOfficial(weights, diffbirFiles());
    const stages = new Stages(device);
    const { parameters } = stages;
    const lora = { rank: 2, layers: 'transformer_blocks.*attn', seed: 3 };
    const how = { walk: { ...paperWalk, steps: 2 }, recompute: false, networks, weights, compute, lora };
    const { trainee, save } = await openTrainee(stages, 'diffbir-v1', how);
    assert.equal((trainee.recipe as { lora: object }).lora, lora);
    const all = [...trainee.module.namedParameters()];
    const trained = all.filter(([, { trainable }]) => trainable).map(([key]) => key);
    assert.ok(
      trained.length && trained.every((key) => /transformer_blocks.*attn.*\.lora_[AB]\.default\.weight$/.test(key)),
    );
    assert.ok(all.every(([, { value, trainable }]) => !trainable || value.dtype === 'f32'));

    // Adapters change nothing at first, and what is written then are the official weights.
    const official = partOf(await openWeights(join(weights, 'v1_face.pth')), 'controlnet');
    const before = await openWeights(await save(folder));
    assert.equal([...before.entries.keys()].sort(), [...official.entries.keys()].sort());
    for (const key of official.entries.keys()) {
      assert.equal(await readTensor(before, key), await readTensor(official, key), key);
    }

    const key = trained.find((name) => name.includes('lora_B'))!;
    const path = key.replace('.lora_B.default.weight', '');
    const [a, b] = ['A', 'B'].map(
      (side) => all.find(([name]) => name === `${path}.lora_${side}.default.weight`)![1].value,
    );
    const values = Float32Array.from({ length: b.size }, (_, i) => Math.sin(i));
    parameters.write(b, values);
    const down = (await parameters.read(a)) as Float32Array;
    const after = await openWeights(await save(folder));
    const old = (await readTensor(official, `${path}.weight`)) as Float32Array;
    const [rows, columns] = [b.shape[0], a.shape[1]];
    const expected = old.map((v, i) => {
      const [row, column] = [Math.floor(i / columns), i % columns];
      return v + (8 / 2) * (values[2 * row] * down[column] + values[2 * row + 1] * down[columns + column]);
    });
    assert.is(rows * columns, old.length);
    close((await readTensor(after, `${path}.weight`)) as Float32Array, expected, 1e-6, 'the merged weight');
    trainee.dispose();
    stages.dispose();
  });
}

test('layers for adapters must be there, and so must a network that takes some', async ({ device }) => {
  const stages = new Stages(device);
  const weights = join(folder, 'lora-undefined');
  const refusal = async (name: string, layers: string): Promise<string> => {
    const how = { walk: paperWalk, recompute: false, networks, weights, lora: { rank: 2, layers, seed: 0 } };
    return (await errorOf(() => openTrainee(stages, name, how))).message;
  };
  assert.match(await refusal('diffbir-v1', 'nowhere'), /layers for LoRA: nowhere finds none of time_embed\.0, /);
  assert.match(await refusal('diffbir-v1', '('), /layers for LoRA: \( is no regular expression/);
  assert.match(await refusal('swinir', '.'), /swinir takes no adapters/);
});

test('DiffBIR 2.1 is walked by v, at levels whose last one has no signal', async ({ device }) => {
  const weights = join(folder, 'diffbir');
  await mkdir(weights);
  await writeOfficial(weights, diffbirFiles());
  for (const [from, to] of [
    ['v1_face.pth', 'DiffBIR_v2.1.pt'],
    ['face_swinir_v1.ckpt', 'codeformer_swinir.ckpt'],
    ['v2-1_512-ema-pruned.ckpt', 'sd2.1-base-zsnr-laionaes5.ckpt'],
  ]) {
    await rename(join(weights, from), join(weights, to));
  }
  const stages = new Stages(device);
  const walk = { ...paperWalk, steps: 2, ends: 1 };
  const { trainee } = await openTrainee(stages, 'diffbir-v2.1', { walk, recompute: false, networks, weights });
  assert.is((trainee.recipe as { prediction: string }).prediction, 'v');
  const feeds = await trainee.enter([{ degraded: new Float32Array(32 * 32 * 3).fill(0.5), draws: new Draws(3) }]);
  const alpha = zeroTerminalSnr(alphasCumprod())[1];
  assert.equal(feeds['clean.0'], Float32Array.of(Math.sqrt(alpha), -Math.sqrt(1 - alpha)));
  trainee.dispose();
  stages.dispose();
});

test('with the true v every step of a walk says what the clean latent is', () => {
  const noise = { prediction: 'v', alphas: zeroTerminalSnr(alphasCumprod()) } as const;
  const [clean, e] = [0.7, -1.3];
  for (const steps of [1, 50]) {
    for (const step of drawWalk(new Draws(1), { ...paperWalk, steps, ends: 1 }, noise)) {
      const a = noise.alphas[step.timestep];
      const [x, v] = [Math.sqrt(a) * clean + Math.sqrt(1 - a) * e, Math.sqrt(a) * e - Math.sqrt(1 - a) * clean];
      assert.ok(Math.abs(step.clean[0] * x + step.clean[1] * v - clean) < 1e-12, `t = ${step.timestep}`);
    }
  }
});

test('weights that must not drift are held against what they were', async ({ device }) => {
  const { models, parameters } = await made(device, 'network');
  const run = { ...options, moving: undefined, kept: 'weights', drift: 1 } as const;
  using session = new Session(models, run);
  await session.create(parameters);
  await session.compile(device, parameters, side);
  assert.is(session.isHeld, true);
  const before = new Map<string, Float32Array>();
  const weights = [...models.trainee.module.namedParameters()];
  for (const [key, { value }] of weights) before.set(key, (await parameters.read(value)).slice() as Float32Array);
  const first = await session.step(0, await pairs.batch(0, 2));
  assert.equal([first.losses.drift, first.norms.drift], [0, 0]);
  let expected = 0;
  for (const [key, { value }] of weights) {
    const now = (await parameters.read(value)) as Float32Array;
    expected += now.reduce((sum, v, i) => sum + (v - before.get(key)![i]) ** 2, 0) / now.length;
  }
  const second = await session.step(1, await pairs.batch(1, 2));
  assert.ok(expected > 1e-6 && Math.abs(second.losses.drift / expected - 1) < 1e-4, `${second.losses.drift}`);
  // The pull of w is 2 (w - before) / size.
  assert.ok(second.norms.drift > 0);
  parameters.dispose();
});

test.run();
