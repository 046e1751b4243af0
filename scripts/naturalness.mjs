// Makes weights/naturalness.safetensors, the statistics that the metric `naturalness` compares pictures with, from photographs:
//
//     node --import tsx scripts/naturalness.mjs [PHOTOGRAPH...]
//
// By default from the demonstration photographs of the npm package @vladmandic/face-api (MIT, (c) Vladimir Mandic).
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decodeImage } from '../lib/image/picture.ts';
import { fitNaturalness } from '../lib/metrics/naturalness.ts';
import { openDevice } from '../lib/runtime/index.ts';
import { writeSafetensors } from '../lib/weights/write.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const demo = join(root, 'node_modules/@vladmandic/face-api/demo');
const own = readdirSync(demo).filter((name) => /^sample\d\.jpg$/.test(name));
const paths = process.argv.length > 2 ? process.argv.slice(2) : own.sort().map((name) => join(demo, name));
const photographs = await Promise.all(paths.map((path) => decodeImage(path)));
const device = await openDevice('cpu');
const { mean, covariance } = await fitNaturalness(device, photographs);
device.dispose();
const tensors = new Map([
  ['mean', { shape: [36], dtype: 'F64', data: () => mean }],
  ['covariance', { shape: [36, 36], dtype: 'F64', data: () => covariance }],
]);
await writeSafetensors(join(root, 'weights/naturalness.safetensors'), tensors, {
  source: 'photographs of npm @vladmandic/face-api 1.7.15, MIT, (c) Vladimir Mandic, halved; scripts/naturalness.mjs',
});
