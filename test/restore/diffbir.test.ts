// DiffBIR's pipeline, stage by stage, against the same arithmetic traced as one graph from bytes to bytes; its knobs; batches.
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { guided } from '../../lib/diffusion/denoise.ts';
import { flatness, guideLoss } from '../../lib/diffusion/guidance.ts';
import { rescaledGuidance, samplerSteps } from '../../lib/diffusion/samplers.ts';
import { NoiseSource } from '../../lib/diffusion/sampling.ts';
import { alphasCumprod, zeroTerminalSnr } from '../../lib/diffusion/schedule.ts';
import { grad } from '../../lib/graph/grad.ts';
import { add, affine, cast, clamp, sub } from '../../lib/graph/ops/elementwise.ts';
import { pad, slice } from '../../lib/graph/ops/layout.ts';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { ControlLDM } from '../../lib/models/diffbir.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import { waveletColorFix } from '../../lib/restore/color_fix.ts';
import { DiffBIRModel, type DiffBIRVersion, diffbirVersions } from '../../lib/restore/diffbir.ts';
import type { ImageOptions } from '../../lib/restore/image_model.ts';
import { Stages } from '../../lib/restore/stages.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { loadWeights } from '../../lib/weights/load.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { openDiffBIR, tinyDiffBIR, writeDiffBIR } from './latent_support.ts';
import { distance, failure, picture, temporaryFolder } from './support.ts';

const test = suite<{ device: Device }>('diffbir', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu', { threads: 1 });
});
test.after(({ device }) => device.dispose());

const folder = temporaryFolder();
const paths = await writeDiffBIR((name) => join(folder, name));

async function load(device: Device, version: DiffBIRVersion = diffbirVersions.v1, size = 16, memory?: number) {
  const options = { name: 'tiny', size, stages: new Stages(device, memory) };
  return DiffBIRModel.load(options, version, await openDiffBIR(paths), tinyDiffBIR);
}

const rgb = async (width: number, height: number, brightness = 1) => ({
  width,
  height,
  data: new Uint8Array(await picture(width, height).modulate({ brightness }).raw().toBuffer()),
});

const plain: ImageOptions = { batch: 1, seed: 5, steps: 3 };

/** All of a restoration as one graph. The negative prompt is empty here, as the tests have no tokenizer. */
async function oneGraph(
  device: Device,
  image: { width: number; height: number; data: Uint8Array },
  version: DiffBIRVersion,
  o: Required<Omit<ImageOptions, 'signal' | 'onProgress' | 'tap' | 'prompts' | 'prompt' | 'batch'>>,
) {
  const model = new ControlLDM(tinyDiffBIR);
  const stage1 = new SwinIR(tinyDiffBIR.stage1);
  using parameters = device.parameters();
  const parts = { unet: model.unet, vae: model.vae, text: model.clip.model, controlnet: model.controlnet, stage1 };
  for (const [name, module] of Object.entries(parts)) {
    await loadWeights(parameters, module, await openWeights(paths[name]), { frozen: true });
  }
  const { width, height, data } = image;
  const alphas = version.zeroTerminalSnr ? zeroTerminalSnr(alphasCumprod()) : alphasCumprod();
  const steps = samplerSteps(o.sampler, { alphas, prediction: version.prediction, steps: o.steps });
  const up = (size: number, to: number): number => Math.ceil(size / to) * to - size;
  const unit = affine(cast(constant(data, [1, height, width, 3], 'u8'), 'f32'), 1 / 255);
  const shape = unit.shape;
  const clean = slice(
    stage1.forward(pad(unit, [0, 0, 0, 0], [0, up(height, 8), up(width, 8), 0])),
    [0, 0, 0, 0],
    shape,
  );
  const hint = model.encode(pad(clean, [0, 0, 0, 0], [0, up(height, 4), up(width, 4), 0])).mean;
  using source = await NoiseSource.create(device, hint.shape);
  const noise = async (i: number): Promise<Tensor> => constant(await source.draw(BigInt(o.seed), i), hint.shape, 'f32');
  const context = model.text(constant(Int32Array.of(513, 514, 0, 0, 0), [1, 5], 'i32'));
  const last = alphas[999];
  let x = await noise(0);
  if (o.start === 'condition') x = add(affine(hint, Math.sqrt(last)), affine(x, Math.sqrt(1 - last)));
  const estimates: Tensor[] = [];
  for (const [i, step] of steps.entries()) {
    const time = constant(Float32Array.of(step.timestep), [1], 'f32');
    const y = model.predict(x, time, { context, hint }, { strength: o.strength });
    const scale = o.rescale ? rescaledGuidance(o.guidance, step.timestep) : o.guidance;
    const output = o.guidance === 1 ? y : guided(y, y, scale);
    const raw = add(affine(x, step.clean[0]), affine(output, step.clean[1]));
    const apart = guideLoss(slice(model.decode(raw), [0, 0, 0, 0], shape), clean, flatness(clean));
    const guides = o.guideScale && o.guideStop < step.timestep && step.timestep < o.guideStart;
    const pulled = guides ? sub(raw, affine(grad(apart, [raw])[0], o.guideScale * 3000)) : raw;
    const estimate = add(affine(pulled, 1 - o.fidelity), affine(hint, o.fidelity));
    estimates.unshift(estimate);
    const terms = [x, estimate, await noise(i + 1), estimates[1] ?? estimate, estimates[2] ?? estimate];
    x = step.next.map((w, k) => affine(terms[k], k > 2 && !estimates[k - 2] ? 0 : w)).reduce(add);
  }
  const y = waveletColorFix(slice(model.decode(x), [0, 0, 0, 0], shape), clean);
  const outputs = { y: cast(affine(clamp(y, 0, 1), 255), 'u8') };
  return (await evaluate(device, outputs, {}, parameters)).y as Uint8Array;
}

const defaults = {
  sampler: 'spaced',
  guidance: 1,
  rescale: false,
  strength: 1,
  start: 'noise',
  fidelity: 0,
  guideScale: 0,
  guideLoss: 'w_mse',
  guideStart: 1001,
  guideStop: -1,
  negativePrompt: '',
} as const;

test('every stage and knob is where one graph of the whole has it', async ({ device }) => {
  const cases = [
    { version: diffbirVersions.v1, size: [16, 16], settings: {} },
    {
      version: diffbirVersions.v1,
      size: [13, 18],
      settings: { sampler: 'ddim', strength: 0.5, start: 'condition', fidelity: 0.25 },
    },
    {
      version: diffbirVersions['v2.1'],
      size: [16, 12],
      settings: { sampler: 'edm_dpm++_3m_sde', guidance: 3, rescale: true },
    },
    { version: diffbirVersions.v2, size: [8, 8], settings: { sampler: 'dpm++_m2', guidance: 2 } },
    {
      version: diffbirVersions.v1,
      size: [11, 12],
      settings: { guideScale: 0.3, guideStart: 800, guideStop: 100, fidelity: 0.1 },
    },
  ] as const;
  for (const { version, size, settings } of cases) {
    const model = await load(device, version);
    const image = await rgb(size[0], size[1]);
    const given = { ...defaults, ...plain, ...settings, steps: 4 };
    const [restored] = await model.restore([image], given);
    const expected = await oneGraph(device, image, version, given);
    assert.ok(
      distance(restored.data, expected) <= 1,
      `${JSON.stringify(settings)}: ${distance(restored.data, expected)}`,
    );
    assert.ok(distance(restored.data, image.data) > 20, 'it changes pictures');
    model.dispose();
  }
});

test('an image comes out the same whatever goes through the model beside it', async ({ device }) => {
  const model = await load(device);
  const images = [await rgb(16, 16), await rgb(16, 16, 0.5), await rgb(20, 16), await rgb(16, 16, 0.7)];
  const together = await model.restore(images, { ...plain, batch: 3 });
  for (const [i, image] of images.entries()) {
    const [alone] = await model.restore([image], plain);
    assert.equal([together[i].width, together[i].height], [image.width, image.height]);
    assert.ok(distance(alone.data, together[i].data) <= 1, `image ${i}`);
  }
  model.dispose();
});

test('seeds, steps and strengths change the result; the same ones repeat it', async ({ device }) => {
  const model = await load(device);
  const image = await rgb(16, 16);
  const [first] = await model.restore([image], plain);
  const [again] = await model.restore([image], plain);
  assert.ok(Buffer.from(first.data).equals(again.data));
  for (const other of [
    { seed: 6 },
    { steps: 5 },
    { sampler: 'ddim' },
    { strength: 0 },
    { start: 'condition' },
    { fidelity: 0.5 },
    { guideScale: 0.3 },
  ] as const) {
    const [changed] = await model.restore([image], { ...plain, ...other });
    assert.ok(distance(first.data, changed.data) > 1, JSON.stringify(other));
  }
  model.dispose();
});

test('without memory for all of it an image is restored in tiles', async ({ device }) => {
  const image = await rgb(64, 64);
  const [whole, tiled] = [await load(device, diffbirVersions.v1, 64), await load(device, diffbirVersions.v1, 64, 0)];
  const [expected] = await whole.restore([image], plain);
  const [restored] = await tiled.restore([image], plain);
  assert.ok(distance(restored.data, expected.data) <= 1, 'the autoencoder and the colour fix are exact in tiles');
  const windows = await load(device, diffbirVersions.v1, 32, 0);
  const wide = await rgb(90, 50);
  const seen: number[] = [];
  const [joined] = await windows.restore([wide], { ...plain, onProgress: (fraction) => seen.push(fraction) });
  assert.equal([joined.width, joined.height, joined.data.length], [90, 50, 90 * 50 * 3]);
  assert.ok(seen.length > 50 && Math.abs(seen.at(-1)! - 1) < 1e-9, `${seen.length} ${seen.at(-1)}`);
  const [again] = await (await load(device, diffbirVersions.v1, 32, 0)).restore([wide], plain);
  assert.ok(Buffer.from(joined.data).equals(again.data), 'and repeats itself');
});

test('progress rises to 1, and an abort rejects with its reason', async ({ device }) => {
  const model = await load(device);
  const seen: number[] = [];
  const images = [await rgb(16, 16), await rgb(12, 16)];
  await model.restore(images, { ...plain, onProgress: (fraction) => seen.push(fraction) });
  assert.equal(
    seen,
    [...seen].sort((a, b) => a - b),
  );
  assert.ok(seen.length > 8 && Math.abs(seen.at(-1)! - 1) < 1e-9);
  const stop = new AbortController();
  const running = model.restore(images, {
    ...plain,
    signal: stop.signal,
    onProgress: () => stop.abort(new Error('enough')),
  });
  assert.is((await failure(running)).message, 'enough');
  model.dispose();
});

test('what makes no sense is refused', async ({ device }) => {
  const model = await load(device);
  const image = await rgb(16, 16);
  const refused: [Partial<ImageOptions>, RegExp][] = [
    [{ fidelity: 1.5 }, /fidelity must be a number from 0 to 1, got 1.5/],
    [{ fidelity: Number.NaN }, /fidelity/],
    [{ guidance: -1 }, /guidance must be a number of at least 0/],
    [{ strength: Infinity }, /strength/],
    [{ guideScale: -1 }, /guideScale must be a number of at least 0/],
    [{ guideLoss: 'l1' as never }, /guideLoss must be mse or w_mse, got l1/],
    [{ guideStart: Number.NaN }, /guideStart must be a timestep/],
    [{ steps: 0 }, /steps/],
    [{ sampler: 'euler' as never }, /there is no sampler euler/],
    [{ start: 'middle' as never }, /start must be noise or condition/],
    [{ prompt: 'a face' }, /a prompt needs a tokenizer/],
    [{ guidance: 2 }, /a prompt needs a tokenizer/],
  ];
  for (const [options, why] of refused) {
    const error = await failure(model.restore([image], { ...plain, ...options }));
    assert.is(error.code, 'ERR_OPTION');
    assert.match(error.message, why);
  }
  model.dispose();
});

test.run();
