// timeout: 600 s
// Networks in 16 bits on device emu:0 (or the one that REFL_TEST_DEVICE names) against float32 on the CPU: frozen weights
// stored in 16 bits, and float32 weights that are trained.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { DType } from '../../lib/graph/dtype.ts';
import { grad } from '../../lib/graph/grad.ts';
import { cast, square } from '../../lib/graph/ops/elementwise.ts';
import { mean } from '../../lib/graph/ops/reduce.ts';
import { input, type Tensor } from '../../lib/graph/tensor.ts';
import { SwinIR } from '../../lib/models/swinir.ts';
import { UNet } from '../../lib/models/unet.ts';
import { initialize } from '../../lib/nn/init.ts';
import { type Module, withDType } from '../../lib/nn/module.ts';
import { type Device, openDevice, type Values } from '../../lib/runtime/index.ts';
import { Optimizer } from '../../lib/train/optimizer.ts';
import { buildLibrary } from '../simt/build.ts';
import { uniforms, valuesOf } from '../support/opcase.ts';

const name = process.env.REFL_TEST_DEVICE ?? 'emu:0';
if (name === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();
const [cpu, cuda] = [await openDevice('cpu'), await openDevice(name)];
test.after(() => {
  cpu.dispose();
  cuda.dispose();
});

/** |a - b| / |b|, of Euclidean norms. */
function distance(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [difference, norm] = [0, 0];
  for (let i = 0; i < b.length; i++) {
    difference += (a[i] - b[i]) ** 2;
    norm += b[i] ** 2;
  }
  return Math.sqrt(difference / norm);
}

const unetConfig = {
  in_channels: 4,
  out_channels: 4,
  model_channels: 32,
  channel_mult: [1, 2],
  num_res_blocks: 1,
  attention_resolutions: [2],
  num_head_channels: 16,
  context_dim: 24,
  transformer_depth: 1,
  use_linear_in_transformer: true,
};
const swinConfig = {
  img_size: 8,
  in_chans: 3,
  embed_dim: 24,
  depths: [2],
  num_heads: [2],
  window_size: 8,
  mlp_ratio: 2,
  sf: 8,
  unshuffle: true,
  unshuffle_scale: 8,
};

/** A network, and its output for inputs of a dtype. */
interface Network<M extends Module> {
  module: () => M;
  forward: (module: M, dtype: DType) => Tensor;
  feeds: Values;
}

const draw = (shape: number[], seed: number): Float32Array =>
  valuesOf({ shape }, 'f32', uniforms(seed)) as Float32Array;

const unet: Network<UNet> = {
  module: () => new UNet(unetConfig),
  forward: (module, dtype) => {
    const [x, context] = [input('x', [1, 8, 8, 4]), input('context', [1, 5, 24])].map((t) => cast(t, dtype));
    return cast(module.forward(x, input('t', [1], 'i32'), context), 'f32');
  },
  feeds: { x: draw([1, 8, 8, 4], 1), context: draw([1, 5, 24], 2), t: Int32Array.of(321) },
};
const swinir: Network<SwinIR> = {
  module: () => new SwinIR(swinConfig),
  forward: (module, dtype) => cast(module.forward(cast(input('x', [1, 128, 128, 3]), dtype)), 'f32'),
  feeds: { x: draw([1, 128, 128, 3], 3) },
};

/** Weights that nothing is zero in, by a seed, and the program's results with them. */
async function compute<M extends Module>(
  device: Device,
  module: M,
  outputs: Record<string, Tensor>,
  feeds: Values,
): Promise<Values> {
  using parameters = device.parameters();
  for (const parameter of module.namedParameters().values()) {
    const { init } = parameter;
    if (init === 'zeros') Object.assign(parameter, { init: { kind: 'uniform', bound: 0.05 } });
  }
  await initialize(device, parameters, module, 7n);
  const program = await device.compile({ outputs }, { parameters });
  const values = await program.run(feeds);
  program.dispose();
  return values;
}

async function compare<M extends Module>({ module, forward, feeds }: Network<M>, half: DType, limit: number) {
  const exact = module().train(false);
  const { y } = await compute(cpu, exact, { y: forward(exact, 'f32') }, feeds);
  const stored = withDType(half, module).train(false);
  const got = await compute(cuda, stored, { y: forward(stored, half) }, feeds);
  const error = distance(got.y as Float32Array, y as Float32Array);
  assert.ok(error > 0 && error < limit, `${half}: ${error}`);
}

// A few dozen roundings of half a unit (2^-9, 2^-12) on the way, which add up like a random walk.
for (const [half, limit] of [
  ['bf16', 0.02],
  ['f16', 0.0025],
] as const) {
  test(`a UNet stored in ${half}`, () => compare(unet, half, limit));
  test(`SwinIR stored in ${half}`, () => compare(swinir, half, limit));
}

test('float32 weights are trained through bf16', async () => {
  const step = async (device: Device, dtype: DType): Promise<Values> => {
    const module = unet.module();
    const loss = mean(square(unet.forward(module, dtype)));
    const optimizer = new Optimizer(module, { weightDecay: 0, clip: 1e9 });
    const grads = grad(loss, optimizer.weights);
    assert.ok(grads.every((g) => g.dtype === 'f32'));
    const { norm } = optimizer.updates(grads);
    return compute(device, module, { loss, norm, ...Object.fromEntries(grads.map((g, i) => [`${i}`, g])) }, unet.feeds);
  };
  const [exact, half] = [await step(cpu, 'f32'), await step(cuda, 'bf16')];
  // Side by side: biases before a norm have no gradient but rounding.
  const flat = (values: Values) => Object.values(values).flatMap((v) => [...(v as Float32Array)]);
  const error = distance(flat(half), flat(exact));
  assert.ok(error > 0 && error < 0.05, `${error}`);
});

test.run();
