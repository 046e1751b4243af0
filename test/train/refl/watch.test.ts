// What the watch says of photographs that were altered by hand.

import { fileURLToPath } from 'node:url';
import sharp, { type Sharp } from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { input } from '../../../lib/graph/tensor.ts';
import { type Device, openDevice, type Program } from '../../../lib/runtime/index.ts';
import { type Alarm, alarmsOf, type Observation, type Signals, signalsOf } from '../../../lib/train/refl/watch.ts';
import { random } from '../../support/random.ts';

const side = 128;
const names = ['astronaut', 'grace-hopper', 'portrait-1', 'portrait-2', 'group'];

type Picture = Float32Array;
const test = suite<{ device: Device; program: Program; photographs: Picture[] }>('watch', {} as never);
test.before(async (context) => {
  context.device = await openDevice('cpu');
  const [images, targets] = ['images', 'targets'].map((name) => input(name, [names.length, side, side, 3]));
  context.program = await context.device.compile({ outputs: { ...signalsOf(images, targets) } });
  context.photographs = await Promise.all(
    names.map(async (name) => {
      const path = fileURLToPath(new URL(`../../../samples/${name}.jpg`, import.meta.url));
      const pixels = await sharp(path).resize(side, side).removeAlpha().raw().toBuffer();
      return Float32Array.from(pixels, (v) => v / 255);
    }),
  );
});
test.after(({ device, program }) => {
  program.dispose();
  device.dispose();
});

const raw = { raw: { width: side, height: side, channels: 3 } } as const;

/** Pictures altered by sharp, through a file in memory. */
const altered = (pictures: readonly Picture[], by: (image: Sharp) => Sharp): Promise<Picture[]> =>
  Promise.all(
    pictures.map(async (picture) => {
      const bytes = Uint8Array.from(picture, (v) => Math.round(255 * v));
      const file = await by(sharp(bytes, raw)).toBuffer();
      const pixels = await sharp(file).removeAlpha().raw().toBuffer();
      return Float32Array.from(pixels, (v) => v / 255);
    }),
  );

/** Every pixel changed by its value, column and row. */
const pixelwise = (pictures: readonly Picture[], fn: (v: number, x: number, y: number) => number): Picture[] =>
  pictures.map((picture) => picture.map((v, i) => fn(v, Math.floor(i / 3) % side, Math.floor(i / 3 / side))));

async function observe(
  { program, photographs }: { program: Program; photographs: Picture[] },
  pictures: readonly Picture[],
): Promise<Signals<number>> {
  const join = (parts: readonly Picture[]): Float32Array => Float32Array.from(parts.flatMap((part) => [...part]));
  const values = await program.run({ images: join(pictures), targets: join(photographs) });
  const mean = (name: string): number => (values[name] as Float32Array).reduce((a, b) => a + b, 0) / names.length;
  return { detail: mean('detail'), repetition: mean('repetition'), colour: mean('colour') };
}

const still = { reward: 0.2, distances: { lpips: 0.3, identity: 0.5 } };
const detectors = (alarms: readonly Alarm[]): string[] => alarms.map(({ detector }) => detector);

test('photographs beside themselves have signals of zero and raise nothing', async (context) => {
  const signals = await observe(context, context.photographs);
  for (const [name, value] of Object.entries(signals)) assert.ok(Math.abs(value) < 1e-6, `${name}: ${value}`);
  const observation: Observation = { ...signals, ...still };
  assert.equal(alarmsOf(observation, observation), []);
});

test('mild JPEG, noise and sharpening raise nothing', async (context) => {
  const { photographs } = context;
  const first: Observation = { ...(await observe(context, photographs)), ...still };
  const { next } = random(3);
  const mild: Record<string, Picture[]> = {
    jpeg: await altered(photographs, (image) => image.jpeg({ quality: 85 })),
    noise: pixelwise(photographs, (v) => v + 0.012 * (next() + next() + next() - 1.5)),
    sharpened: await altered(photographs, (image) => image.sharpen({ sigma: 0.6, m1: 0.4, m2: 0.4 }).png()),
    brighter: pixelwise(photographs, (v) => 1.03 * v),
  };
  for (const [name, pictures] of Object.entries(mild)) {
    const signals = await observe(context, pictures);
    assert.equal(detectors(alarmsOf(first, { ...signals, ...still })), [], `${name}: ${JSON.stringify(signals)}`);
  }
});

test("the paper's failures, and others like them, are named", async (context) => {
  const { photographs } = context;
  const first: Observation = { ...(await observe(context, photographs)), ...still };
  const { next } = random(4);
  const painted = await altered(photographs, (image) => image.median(7).png());
  const hacks: Record<string, [Picture[], string[]]> = {
    painterly: [painted, ['smoothing']],
    'repeated skin texture': [
      pixelwise(photographs, (v, x, y) => v + 0.05 * Math.cos((2 * Math.PI * x) / 8) * Math.cos((2 * Math.PI * y) / 8)),
      ['repetition'],
    ],
    grain: [pixelwise(photographs, (v) => v + 0.15 * (next() - 0.5)), ['texture']],
    'colour cast': [photographs.map((picture) => picture.map((v, i) => v + (i % 3 ? 0 : 0.08))), ['colour']],
    contrast: [pixelwise(photographs, (v) => 0.5 + 1.4 * (v - 0.5)), ['colour']],
  };
  for (const [name, [pictures, expected]] of Object.entries(hacks)) {
    const signals = await observe(context, pictures);
    const raised = detectors(alarmsOf(first, { ...signals, ...still }));
    for (const detector of expected)
      assert.ok(raised.includes(detector), `${name}: ${raised}, ${JSON.stringify(signals)}`);
  }
});

test('a reward that rises alone is alarming, and one that rises with the rest is not', () => {
  const first: Observation = {
    detail: -1,
    repetition: 0,
    colour: 0.02,
    reward: 0.2,
    independent: 0.21,
    distances: { lpips: 0.3 },
  };
  const now = (change: Partial<Observation>): string[] => detectors(alarmsOf(first, { ...first, ...change }));
  assert.equal(now({ reward: 0.25, independent: 0.24, distances: { lpips: 0.29 } }), []);
  assert.equal(now({ reward: 0.25, independent: 0.215, distances: { lpips: 0.29 } }), ['judge']);
  assert.equal(now({ reward: 0.25, independent: 0.24, distances: { lpips: 0.33 } }), ['distance.lpips']);
  assert.equal(now({ reward: 0.2, distances: { lpips: 0.33 } }), [], 'without a rise nobody was hacked');
  assert.equal(now({ detail: 0.1 }), [], 'detail that was missing has come');
  assert.equal(now({ detail: Number.NaN }), ['texture', 'smoothing']);
});

test('a judge that comes to like everything more raises nothing on photographs, nor hides what it likes beyond them', () => {
  const first: Observation = {
    ...{ detail: 0, repetition: 0, colour: 0, reward: 0.2, photographs: 0.2, independent: 0.2 },
    distances: { lpips: 0.3 },
  };
  const now = (change: Partial<Observation>): string[] => detectors(alarmsOf(first, { ...first, ...change }));
  assert.equal(now({ reward: 0.6, photographs: 0.6 }), []);
  assert.equal(now({ reward: 0.1, photographs: 0.05, distances: { lpips: 0.33 } }), ['distance.lpips', 'judge']);
});

test.run();
