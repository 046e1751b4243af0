// Whole models of latent diffusion at a small size: what training starts from, how far the condition steers, and adapters
// beside the weights or folded into them. DiffBIR's numbers are compared with PyTorch's in test/parity.
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { input } from '../../lib/graph/tensor.ts';
import { copiedFrom } from '../../lib/models/controlnet.ts';
import { ControlLDM, diffbir } from '../../lib/models/diffbir.ts';
import { sd21 } from '../../lib/models/latent.ts';
import { OSEDiff } from '../../lib/models/osediff.ts';
import { initialize } from '../../lib/nn/init.ts';
import { folded } from '../../lib/nn/lora.ts';
import type { Module, Parameter } from '../../lib/nn/module.ts';
import { type Device, evaluate, openDevice, type Parameters } from '../../lib/runtime/index.ts';
import { close, relativeError, sameBits } from '../support/assert.ts';
import { smallLatent as small } from '../support/latent.ts';
import { random } from '../support/random.ts';

const test = suite<{ device: Device }>('latent', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu');
});
test.after(({ device }) => device.dispose());

const control = { ...small, controlnet: { ...small.unet, hint_channels: 2 } };

const numbers = (seed: number, size: number): Float32Array => {
  const { next } = random(seed);
  return Float32Array.from({ length: size }, () => 2 * next() - 1);
};

/** Values everywhere, also where initialisers leave zeros. */
function fill(parameters: Parameters, module: Module): void {
  let seed = 1;
  for (const { value } of module.namedParameters().values()) {
    const data = numbers(seed++, value.size).map((v) => v / Math.sqrt(value.shape.slice(1).reduce((a, b) => a * b, 4)));
    if (!parameters.has(value)) parameters.add(value, { data });
  }
}

const latent = input('latent', [2, 4, 6, 2]);
const timesteps = input('timesteps', [2], 'i32');
const context = input('context', [2, 5, 6]);
const hint = input('hint', [2, 4, 6, 2]);
const feeds = {
  latent: numbers(1, latent.size),
  timesteps: Int32Array.of(999, 3),
  context: numbers(2, context.size),
  hint: numbers(3, hint.size),
};

test('at full size the parts have their published sizes', () => {
  assert.is(new ControlLDM(diffbir).parameterCount, 865_910_724 + 83_653_863 + 354_032_641 + 363_153_280);
  const adapted = new OSEDiff(sd21, { unet: 4, vae: 4 });
  assert.is(adapted.parameterCount, 865_910_724 + 83_653_863 + 354_032_641 + 4_055_712 + 369_356);
  assert.equal([adapted.factor, adapted.channels, adapted.textShape], [8, 4, [77, 1024]]);
});

test('a ControlNet starts as a copy of its UNet that changes nothing', async ({ device }) => {
  const model = new ControlLDM(control);
  using parameters = device.parameters();
  fill(parameters, model.unet);
  await initialize(device, parameters, model, 5n, copiedFrom(model.unet, model.controlnet));
  const outputs = {
    steered: model.predict(latent, timesteps, { context, hint }),
    alone: model.unet.forward(latent, timesteps, context),
  };
  const values = await evaluate(device, outputs, feeds, parameters);
  sameBits(values.steered, values.alone, 'prediction');

  const first = (part: Module) => parameters.read(part.namedParameters().get('input_blocks.0.0.weight')!.value);
  const [copy, original] = [await first(model.controlnet), await first(model.unet)];
  for (let o = 0; o < 8; o++) {
    const row = copy.slice(o * 4 * 9, (o + 1) * 4 * 9);
    sameBits(row.slice(0, 18), original.slice(o * 18, (o + 1) * 18), `output ${o}, latent`);
    assert.ok(
      row.slice(18).every((v) => v === 0),
      `output ${o}, condition`,
    );
  }
});

test('strength scales what the condition adds', async ({ device }) => {
  const model = new ControlLDM(control);
  using parameters = device.parameters();
  fill(parameters, model);
  const at = (strength: number) => model.predict(latent, timesteps, { context, hint }, { strength });
  const alone = model.unet.forward(latent, timesteps, context);
  const { none, half, all, plain } = await evaluate(
    device,
    { none: at(0), half: at(0.5), all: at(1), plain: alone },
    feeds,
    parameters,
  );
  sameBits(none, plain, 'strength 0');
  const change = (y: ArrayLike<number>): number => Math.hypot(...Array.from(y, (v, i) => v - plain[i]));
  assert.ok(change(half) > 1e-3 && change(all) > 1.5 * change(half), `${change(half)} and ${change(all)}`);
});

test('adapters beside the weights give what adapters folded into them give', async ({ device }) => {
  const adapted = new OSEDiff(small, { unet: 2, vae: 3 });
  const plain = new OSEDiff(small);
  using parameters = device.parameters();
  fill(parameters, adapted);
  const values = new Map<Parameter, Parameter['value']>(folded(plain, adapted));
  const kept = adapted.namedParameters();
  for (const [key, parameter] of plain.namedParameters()) {
    if (values.has(parameter)) continue;
    const own = kept.get(key) ?? kept.get(key.replace(/bias$/, 'base_layer.bias'))!;
    values.set(parameter, own.value);
  }
  plain.train(false);
  await initialize(device, parameters, plain, 0n, values);

  const image = input('image', [1, 16, 8, 3]);
  const run = (model: OSEDiff) => {
    const { mean, std } = model.encode(image);
    const noise = model.predict(latent, context);
    return { mean, std, noise, decoded: model.decode(mean) };
  };
  const given = { image: numbers(4, image.size).map(Math.abs), latent: feeds.latent, context: feeds.context };
  const [apart, together] = [
    await evaluate(device, run(adapted), given, parameters),
    await evaluate(device, run(plain), given, parameters),
  ];
  for (const name of Object.keys(apart)) close(together[name], apart[name], 1e-4, name);

  for (const [key, { value }] of kept) {
    if (key.includes('.lora_B.')) parameters.write(value, new Float32Array(value.size));
  }
  const without = await evaluate(device, run(adapted), given, parameters);
  for (const name of ['mean', 'noise']) assert.ok(relativeError(without[name], apart[name]) > 0.1, name);
});

test.run();
