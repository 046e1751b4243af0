// Whole models at small, odd configurations, with random weights everywhere: the loss's derivative along a random
// direction against finite differences in float64, recompute segments, and sizes. Agreement with PyTorch stands in test/parity.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { arrayOf, type TypedArray } from '../../lib/graph/dtype.ts';
import { grad } from '../../lib/graph/grad.ts';
import { add, mul } from '../../lib/graph/ops/elementwise.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { constant, input, type Tensor } from '../../lib/graph/tensor.ts';
import { CLIP, type CLIPConfig } from '../../lib/models/clip.ts';
import { ControlNet } from '../../lib/models/controlnet.ts';
import { SwinIR, type SwinIRConfig } from '../../lib/models/swinir.ts';
import { UNet, type UNetConfig } from '../../lib/models/unet.ts';
import { AutoencoderKL, posterior } from '../../lib/models/vae.ts';
import { type Module, withDType } from '../../lib/nn/module.ts';
import { type Device, openDevice, type Parameters } from '../../lib/runtime/index.ts';
import { sameBits } from '../support/assert.ts';
import { random } from '../support/random.ts';

const test = suite<{ device: Device }>('models', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu');
});
test.after(({ device }) => device.dispose());

const unetConfig: UNetConfig = {
  in_channels: 3,
  out_channels: 2,
  model_channels: 8,
  channel_mult: [1, 3],
  num_res_blocks: [1, 2],
  attention_resolutions: [2],
  num_heads: 2,
  context_dim: [5, 5],
  transformer_depth: 2,
  num_groups: 4,
};

const swinirConfig: SwinIRConfig = {
  img_size: [8, 12],
  in_chans: 3,
  embed_dim: 8,
  depths: [2],
  num_heads: [2],
  window_size: 4,
  mlp_ratio: 1.5,
  sf: 4,
  img_range: 2,
  resi_connection: '3conv',
  unshuffle: true,
  unshuffle_scale: 2,
};

const vaeConfig = {
  embed_dim: 3,
  ddconfig: {
    in_channels: 3,
    out_ch: 3,
    ch: 8,
    ch_mult: [1, 2],
    num_res_blocks: 1,
    z_channels: 2,
    resolution: 8,
    attn_resolutions: [8],
    num_groups: 4,
  },
};

const clipConfig: CLIPConfig = {
  embed_dim: 3,
  vision_cfg: { image_size: [7, 4], patch_size: 3, width: 6, layers: 2, head_width: 3, mlp_ratio: 1.5 },
  text_cfg: { context_length: 4, vocab_size: 9, width: 4, heads: 1, layers: 2 },
  quick_gelu: true,
};

/** A model traced for given options: its feeds' shapes, and a loss that depends on all of its outputs. */
interface Model {
  build(): Module;
  feeds: Record<string, number[]>;
  outputs(module: never, feeds: Record<string, Tensor>, recompute: boolean): Tensor[];
  /** Step of the finite differences and their largest relative error. */
  step: number;
  limit: number;
}

const smooth = { step: 1e-5, limit: 1e-7 };
/** Leaky ReLUs have kinks, of which a larger step would cross some. */
const kinked = { step: 1e-8, limit: 1e-4 };

const models: Record<string, Model> = {
  UNet: {
    build: () => new UNet(unetConfig),
    feeds: { x: [2, 4, 6, 3], t: [2], context: [2, 3, 5] },
    outputs: (unet: UNet, { x, t, context }, recompute) => [unet.forward(x, t, context, { recompute })],
    ...smooth,
  },
  ControlNet: {
    build: () => new ControlNet({ ...unetConfig, hint_channels: 2 }),
    feeds: { x: [1, 4, 4, 3], hint: [1, 4, 4, 2], t: [1], context: [1, 3, 5] },
    outputs: (net: ControlNet, { x, hint, t, context }, recompute) => net.forward(x, hint, t, context, { recompute }),
    ...smooth,
  },
  AutoencoderKL: {
    build: () => new AutoencoderKL(vaeConfig),
    feeds: { image: [1, 8, 8, 3], z: [1, 3, 4, 3] },
    outputs: (vae: AutoencoderKL, { image, z }, recompute) => {
      const { mean, std } = posterior(vae.encode(image, { recompute }));
      return [mean, std, vae.decode(z, { recompute })];
    },
    ...smooth,
  },
  SwinIR: {
    build: () => new SwinIR(swinirConfig),
    feeds: { image: [1, 9, 14, 3] },
    outputs: (swinir: SwinIR, { image }, recompute) => [swinir.forward(image, { recompute })],
    ...kinked,
  },
  CLIP: {
    build: () => new CLIP(clipConfig),
    feeds: { image: [2, 7, 4, 3] },
    outputs: (clip: CLIP, { image }, recompute) => {
      const ids = constant(Int32Array.of(7, 1, 8, 0, 7, 8, 0, 0), [2, 4], 'i32');
      const options = { recompute };
      return [
        clip.visual.forward(image, options),
        clip.pooled(ids, options),
        clip.tokens(ids, { ...options, skip: 1 }),
      ];
    },
    ...smooth,
  },
};

function uniform(length: number, seed: number, scale: number, dtype: 'f32' | 'f64'): TypedArray {
  const { next } = random(seed);
  return arrayOf(dtype, length).map(() => scale * (2 * next() - 1));
}

/** Random weights in every parameter, norms around 1: nothing is zero as it is at official initialisation. */
function fill(parameters: Parameters, module: Module, dtype: 'f32' | 'f64'): Map<Tensor, TypedArray> {
  const filled = new Map<Tensor, TypedArray>();
  let seed = 1;
  for (const { value, init } of module.namedParameters().values()) {
    const fan = value.size / (value.shape[0] ?? 1);
    const values = uniform(value.size, seed++, 1.5 / Math.sqrt(fan), dtype);
    const data = init === 'ones' ? values.map((v) => 1 + v / 4) : values;
    parameters.add(value, { data });
    filled.set(value, data);
  }
  return filled;
}

/** The sum of all outputs, each weighted by a random tensor of its own shape. */
function lossOf(outputs: Tensor[]): Tensor {
  return outputs.map((y, i) => sum(mul(y, input(`w${i}`, y.shape, y.dtype)))).reduce(add);
}

function feedValues(model: Model, outputs: Tensor[], dtype: 'f32' | 'f64'): Record<string, TypedArray> {
  const values: Record<string, TypedArray> = {};
  Object.entries(model.feeds).forEach(([name, shape], i) => {
    const size = shape.reduce((a, b) => a * b);
    values[name] = name === 't' ? arrayOf(dtype, size).map((_, k) => 7.5 + 300 * k) : uniform(size, 100 + i, 1, dtype);
  });
  outputs.forEach((y, i) => {
    values[`w${i}`] = uniform(y.size, 200 + i, 1, dtype);
  });
  return values;
}

const inputsOf = ({ feeds }: Model, dtype: 'f32' | 'f64'): Record<string, Tensor> =>
  Object.fromEntries(Object.entries(feeds).map(([name, shape]) => [name, input(name, shape, dtype)]));

for (const [name, model] of Object.entries(models)) {
  test(`${name}: the gradient is the loss's slope`, async ({ device }) => {
    const module = withDType('f64', model.build);
    const feeds = inputsOf(model, 'f64');
    const outputs = model.outputs(module as never, feeds, false);
    const loss = lossOf(outputs);
    using parameters = device.parameters();
    const weights = fill(parameters, module, 'f64');
    const names = Object.keys(feeds);
    const leaves = [...weights.keys()];
    const grads = grad(loss, [...names.map((key) => feeds[key]), ...leaves]);
    const values = feedValues(model, outputs, 'f64');
    const results = Object.fromEntries(grads.map((g, i) => [`g${i}`, g]));
    using program = await device.compile({ outputs: { loss, ...results } }, { parameters });
    const analytic = await program.run(values);

    const start = [...names.map((key) => values[key]), ...leaves.map((leaf) => weights.get(leaf)!)];
    const direction = start.map((array, i) => uniform(array.length, 300 + i, 1, 'f64'));
    let slope = 0;
    direction.forEach((d, i) => {
      for (let k = 0; k < d.length; k++) slope += d[k] * analytic[`g${i}`][k];
    });
    using forward = await device.compile({ outputs: { loss } }, { parameters });
    const lossAt = async (step: number): Promise<number> => {
      const moved = start.map((array, i) => array.map((v, k) => v + step * direction[i][k]));
      for (const [i, leaf] of leaves.entries()) parameters.write(leaf, moved[names.length + i]);
      const at = Object.fromEntries(names.map((key, i) => [key, moved[i]]));
      return (await forward.run({ ...values, ...at })).loss[0];
    };
    const h = model.step;
    const [far, near] = [(await lossAt(2 * h)) - (await lossAt(-2 * h)), (await lossAt(h)) - (await lossAt(-h))];
    const numeric = (8 * near - far) / (12 * h);
    assert.ok(
      Math.abs(numeric - slope) <= model.limit * Math.abs(slope),
      `gradient says ${slope}, differences ${numeric}`,
    );
  });

  test(`${name}: recompute segments change memory, not one bit of the gradient`, async ({ device }) => {
    const module = model.build();
    using parameters = device.parameters();
    fill(parameters, module, 'f32');
    const runs: Record<string, TypedArray>[] = [];
    for (const recompute of [false, true]) {
      const feeds = inputsOf(model, 'f32');
      const outputs = model.outputs(module as never, feeds, recompute);
      const leaves = [...module.namedParameters().values()].map(({ value }) => value);
      const grads = grad(lossOf(outputs), leaves);
      const results = Object.fromEntries(grads.map((g, i) => [`g${i}`, g]));
      using program = await device.compile({ outputs: results }, { parameters });
      runs.push(await program.run(feedValues(model, outputs, 'f32')));
    }
    for (const key of Object.keys(runs[0])) sameBits(runs[1][key], runs[0][key], key);
  });
}

test('SwinIR pads by reflection: a padded image gives the same picture, cut', async ({ device }) => {
  const module = new SwinIR(swinirConfig);
  using parameters = device.parameters();
  fill(parameters, module, 'f32');
  const run = async (h: number, w: number, values: TypedArray): Promise<TypedArray> => {
    const y = module.forward(input('image', [1, h, w, 3]));
    assert.equal(y.shape, [1, 2 * h, 2 * w, 3]);
    using program = await device.compile({ outputs: { y } }, { parameters });
    return (await program.run({ image: values })).y;
  };
  const [h, w] = [7, 16];
  const image = uniform(h * w * 3, 5, 1, 'f32');
  const padded = new Float32Array(8 * w * 3);
  padded.set(image as Float32Array);
  padded.copyWithin(7 * w * 3, 5 * w * 3, 6 * w * 3);
  sameBits(await run(h, w, image), (await run(8, w, padded)).slice(0, 4 * h * w * 3), 'picture');
});

test('a UNet refuses sides that do not halve, naming the multiple', () => {
  const unet = new UNet(unetConfig);
  const [t, context] = [input('t', [1]), input('context', [1, 3, 5])];
  assert.throws(() => unet.forward(input('x', [1, 5, 4, 3]), t, context), /multiples of 2, got 5x4/);
});

test('options that would give another network are refused by name', () => {
  const scaled = { ...unetConfig, use_scale_shift_norm: true };
  assert.throws(() => new UNet(scaled), /use_scale_shift_norm must be false, got true/);
  const shuffled = { ...swinirConfig, upsampler: 'pixelshuffle' };
  assert.throws(() => new SwinIR(shuffled), /upsampler must be nearest\+conv, got pixelshuffle/);
  const single = { ...vaeConfig, ddconfig: { ...vaeConfig.ddconfig, double_z: false } };
  assert.throws(() => new AutoencoderKL(single), /needs ddconfig\.double_z/);
});

test.run();
