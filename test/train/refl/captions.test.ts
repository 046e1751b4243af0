// Captions of photographs: which one a crop is judged by, and what steers its restoration.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Draws } from '../../../lib/data/draws.ts';
import { OSEDiff } from '../../../lib/models/osediff.ts';
import { type Device, openDevice } from '../../../lib/runtime/index.ts';
import { paperWalk } from '../../../lib/train/refl/rollout.ts';
import { type Caption, Session } from '../../../lib/train/refl/session.ts';
import { setUp } from '../../../lib/train/refl/setup.ts';
import { OSEDiffTrainee } from '../../../lib/train/refl/trainees.ts';
import { picture, temporaryFolder, writeTinyModel } from '../../restore/support.ts';
import { writeTinyClip, writeTokenizer } from '../../reward/support.ts';
import { smallLatent } from '../../support/latent.ts';
import { made, options, pairs, side } from './small.ts';
import { numbers, tokens } from './support.ts';

const test = suite<{ device: Device }>('refl captions', {} as { device: Device });
test.before(async (context) => {
  context.device = await openDevice('cpu');
});
test.after(({ device }) => device.dispose());

test('every crop is judged by the caption of its picture', async ({ device }) => {
  const { models, parameters } = await made(device, 'network');
  const captions = [4, 7].map((word): Caption => ({ text: `${word}`, ids: Int32Array.of(10, word, 3, 11, 0) }));
  const images = await pairs.batch(0, 2);
  const rewards = async (pictures: number[], known = captions): Promise<number> => {
    using session = new Session({ ...models, captions: known }, { ...options, lr: 0, moving: undefined });
    await session.create(parameters);
    await session.compile(device, parameters, side);
    return (await session.step(0, { ...images, pictures })).losses.reward;
  };
  const [both, other] = [await rewards([0, 1]), await rewards([1, 0])];
  const each = [await rewards([0, 0]), await rewards([1, 1])];
  assert.ok(Math.abs(each[0] - each[1]) > 1e-4 && both !== other);
  assert.ok(Math.abs(both + other - each[0] - each[1]) < 1e-6);
  // A picture without one is judged by the caption of all.
  const alone = { text: 'all', ids: models.caption };
  assert.is(await rewards([5, 5]), await rewards([0, 0], [alone, alone]));
  parameters.dispose();
});

test('photographs without a caption are counted, and have the common one', async ({ device }) => {
  const folder = temporaryFolder();
  const photographs = join(folder, 'photographs');
  await mkdir(photographs);
  for (const name of ['a', 'b', 'c'])
    await picture(40, 40)
      .png()
      .toFile(join(photographs, `${name}.png`));
  const model = join(folder, 'tiny.safetensors');
  await writeTinyModel(model);
  const setup = await setUp(device, {
    ...{ model, judge: await writeTinyClip(join(folder, 'judge.safetensors')), tokenizer: writeTokenizer(folder) },
    ...{ unlocked: 'all', walk: paperWalk, recompute: false, seed: 1 },
    ...{ photographs: [{ folder: photographs, weight: 1 }], caption: 'low' },
    heldOut: { folder: photographs, looks: 2 },
    captionOf: (path) => (path.endsWith('b.png') ? 'lower face' : undefined),
  });
  const { captions, caption } = setup.models;
  assert.equal(
    captions!.map(({ text }) => text),
    ['low', 'lower face', 'low'],
  );
  assert.equal(captions![0].ids, caption);
  assert.not.equal(captions![1].ids, caption);
  for (const what of ['photographs', 'held-out photographs']) {
    assert.ok(setup.notes.includes(`2 of 3 ${what} have no caption and count as: low`), setup.notes.join('; '));
  }
  const { pictures } = await setup.pairs.batch(0, 20);
  assert.equal([...new Set(pictures)].sort(), [0, 1, 2]);
  setup.dispose();
});

test('what a picture shows steers a restorer that reads captions', async ({ device }) => {
  const model = new OSEDiff(smallLatent, { unet: 2, vae: 2 });
  const values = numbers(1, tokens * 6) as Float32Array;
  const other = numbers(2, tokens * 6) as Float32Array;
  const context = { values, shape: [tokens, 6], of: async (text: string) => (text === 'glasses' ? other : values) };
  const trainee = await OSEDiffTrainee.create(device, { model, side, context });
  const degraded = new Float32Array(side * side * 3);
  const samples = ['glasses', undefined].map((text) => ({ degraded, draws: new Draws(1), text }));
  assert.equal((await trainee.enter(samples)).context, Float32Array.of(...other, ...values));
  assert.equal(trainee.recipe, { form: 'one step', compute: undefined, texts: 'captions' });
  trainee.dispose();
});

test.run();
