// Child of networks.ts. `write FILE THREADS` makes a file of Stable Diffusion 2.1's UNet with random weights; `open
// FILE THREADS` prints how long it takes from there to the first prediction, and how long the second one takes.
import { createReadStream } from 'node:fs';
import { latentShape, sd21Context, sd21Noise } from '../lib/bench/models.ts';
import { fill } from '../lib/bench/timing.ts';
import { input } from '../lib/graph/index.ts';
import { sd21 } from '../lib/models/latent.ts';
import { UNet } from '../lib/models/unet.ts';
import { initialize } from '../lib/nn/init.ts';
import { openDevice } from '../lib/runtime/index.ts';
import { loadWeights } from '../lib/weights/load.ts';
import { openSafetensors } from '../lib/weights/safetensors.ts';
import { type Source, writeSafetensors } from '../lib/weights/write.ts';

const [what, path, threads] = process.argv.slice(2);
using device = await openDevice('cpu', { threads: Number(threads) });
await (what === 'write' ? write() : open());

async function write(): Promise<void> {
  const unet = new UNet(sd21.unet);
  using parameters = device.parameters();
  await initialize(device, parameters, unet, 1n);
  const tensors = [...unet.namedParameters()].map(([key, { value }]): [string, Source] => [
    key,
    { dtype: 'F32', shape: value.shape, data: () => parameters.read(value) },
  ]);
  await writeSafetensors(path, new Map(tensors));
}

async function open(): Promise<void> {
  for await (const _ of createReadStream(path, { highWaterMark: 1 << 24 })); // into the page cache
  const feeds = { latent: fill(new Float32Array(64 * 64 * 4), 0), context: sd21Context() };
  const start = performance.now();
  const unet = new UNet(sd21.unet).train(false);
  const file = await openSafetensors(path);
  using parameters = device.parameters();
  await loadWeights(parameters, unet, file);
  const y = sd21Noise(unet, input('latent', latentShape), 999);
  using program = await device.compile({ outputs: { y } }, { parameters });
  await program.run(feeds);
  const opened = performance.now();
  await program.run(feeds);
  const [first, second] = [opened - start, performance.now() - opened].map((ms) => ms / 1000);
  console.log(JSON.stringify({ bytes: parameters.bytes, first, second }));
}
