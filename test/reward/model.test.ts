import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { constant } from '../../lib/graph/tensor.ts';
import { CLIP } from '../../lib/models/clip.ts';
import { features, scores } from '../../lib/reward/hps.ts';
import { RewardModel } from '../../lib/reward/model.ts';
import type { Preprocessing } from '../../lib/reward/pictures.ts';
import { diffusionRewardPreprocess, hpsPreprocess } from '../../lib/reward/preprocess.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { ClipTokenizer } from '../../lib/text/tokenizer.ts';
import { loadWeights } from '../../lib/weights/load.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import { picture, temporaryFolder } from '../restore/support.ts';
import { close } from '../support/assert.ts';
import { errorOf } from '../support/runtime.ts';
import { tinyClip, writeTinyClip, writeTokenizer, writeTransformers } from './support.ts';

const test = suite('RewardModel');
const folder = temporaryFolder();
const tokenizer = writeTokenizer(folder);
const weights = await writeTinyClip(join(folder, 'clip.safetensors'));
const load = (options: object = {}): Promise<RewardModel> =>
  RewardModel.load({ weights, tokenizer, device: 'cpu', ...options });

const [wide, square] = await Promise.all([picture(20, 12).png().toBuffer(), picture(16, 16).png().toBuffer()]);
const captions = ['low', 'a lower face'];

/** The same score put together by hand. */
async function expected(image: Buffer, caption: string, own: boolean): Promise<number> {
  const { data, info } = await sharp(image).removeAlpha().raw().toBuffer({ resolveWithObject: true });
  const unit = Float32Array.from(data, (v) => v / 255);
  const shape = [1, info.height, info.width, 3];
  const x = own
    ? diffusionRewardPreprocess(
        constant(
          unit.map((v) => 2 * v - 1),
          shape,
          'f32',
        ),
        { size: 8 },
      )
    : hpsPreprocess(constant(unit, shape, 'f32'), { size: 8 });
  const { ids } = (await ClipTokenizer.load(tokenizer)).encode([caption], 9);
  const clip = new CLIP(tinyClip);
  using device = await openDevice('cpu');
  using parameters = device.parameters();
  await loadWeights(parameters, clip, await openSafetensors(weights));
  const y = scores(features(clip, x, constant(ids, [1, 9], 'i32')));
  return (await evaluate(device, { y }, {}, parameters)).y[0];
}

test('a score is the cosine of preprocessed picture and caption', async () => {
  using model = await load();
  const found = await model.score([wide, square], captions);
  close(
    found.map(({ score }) => score),
    [await expected(wide, captions[0], false), await expected(square, captions[1], false)],
    1e-5,
    'hps',
  );
  using own = await load({ preprocessing: 'diffusionreward' });
  const [{ score }] = await own.score([square], ['low']);
  close([score], [await expected(square, 'low', true)], 1e-5, 'diffusionreward');
  assert.ok(Math.abs(found[0].score - found[1].score) > 1e-3);
});

test('a folder of transformers gives the same score, and a file without both towers says what it holds', async () => {
  const own = await openSafetensors(weights);
  const at = join(folder, 'clip');
  mkdirSync(at);
  await writeTransformers(join(at, 'model.safetensors'), own);
  using model = await load({ weights: at });
  using other = await load();
  const [found] = await model.score([wide], ['low']);
  close([found.score], [(await other.score([wide], ['low']))[0].score], 1e-6, 'score');
  const path = join(folder, 'text.safetensors');
  await writeTinyClip(path, (key, values) => (key.startsWith('visual.') ? undefined : values));
  assert.match(
    (await errorOf(() => load({ weights: path }))).message,
    /does not hold CLIP, both towers: it holds CLIP's text encoder/,
  );
});

test('batches, one caption for all and the order change nothing', async () => {
  using model = await load();
  const values = async (...args: Parameters<RewardModel['score']>): Promise<number[]> =>
    (await model.score(...args)).map(({ score }) => score);
  const [first, second] = await values([wide, square], ['low']);
  close(await values([square, wide, square], ['low'], { batch: 2 }), [second, first, second], 1e-6, 'batch');
  const fractions: number[] = [];
  await model.score([wide, square], ['low'], { onProgress: (fraction) => fractions.push(fraction) });
  assert.equal(fractions, [0.5, 1]);
});

test('each preprocessing gives a score of its own', async () => {
  const found = new Set<number>();
  const all: Preprocessing[] = ['hps', 'hps-plain', 'hps-pil', 'diffusionreward', 'diffusionreward-plain'];
  for (const preprocessing of all) {
    using model = await load({ preprocessing });
    found.add((await model.score([square], ['low']))[0].score);
  }
  assert.is(found.size, all.length);
});

test('a picture whose longer side fits already is padded, where the official tower would fail', async () => {
  using model = await load();
  const narrow = await picture(8, 4).png().toBuffer();
  const padded = await sharp(narrow).extend({ top: 2, bottom: 2, background: 'black' }).png().toBuffer();
  const [one, other] = await model.score([narrow, padded], ['low']);
  close([one.score], [other.score], 1e-6, 'score');
});

test('a caption that is too long is shortened, and it is said', async () => {
  using model = await load();
  const [short, long, longer] = await model.score(
    [square, square, square],
    ['low', 'low '.repeat(8), 'low '.repeat(9)],
  );
  assert.equal([short.shortened, long.shortened, longer.shortened], [false, true, true]);
  assert.is(long.score, longer.score);
});

test('one bad picture spoils no other', async () => {
  using model = await load();
  const results = await model.scoreMany([square, Buffer.from('no picture'), wide], ['low'], { batch: 3 });
  assert.equal(
    results.map(({ status }) => status),
    ['fulfilled', 'rejected', 'fulfilled'],
  );
  const alone = await model.score([wide], ['low']);
  close([(results[2] as PromiseFulfilledResult<{ score: number }>).value.score], [alone[0].score], 1e-6, 'score');
  assert.is((await errorOf(() => model.score([square, Buffer.from('no picture')], ['low']))).code, 'ERR_IMAGE');
});

test('what does not fit together is refused with what is wrong', async () => {
  using model = await load();
  assert.match(
    (await errorOf(() => model.score([square], []))).message,
    /1 pictures need as many captions, or one, got 0/,
  );
  assert.match((await errorOf(() => model.score([square], ['a'], { batch: 0 }))).message, /batch must be/);
  const thin = await picture(200, 1).png().toBuffer();
  assert.match((await errorOf(() => model.score([thin], ['a']))).message, /no pixels left at 8/);
  using own = await load({ preprocessing: 'diffusionreward' });
  assert.match((await errorOf(() => own.score([wide], ['a']))).message, /takes squares, the picture has 20x12/);
});

test('files that make no model are refused', async () => {
  const path = join(folder, 'bad.safetensors');
  const message = async (change?: Parameters<typeof writeTinyClip>[1], config?: object): Promise<string> => {
    await writeTinyClip(path, change, config);
    return (await errorOf(() => load({ weights: path }))).message;
  };
  assert.match(
    await message((key, values) => (key === 'ln_final.bias' ? undefined : values)),
    /missing: ln_final\.bias/,
  );
  const deep = { ...tinyClip, text_cfg: { ...tinyClip.text_cfg, layers: 1e9 } };
  assert.match(await message(undefined, deep), /more layers than the file/);
  assert.match(await message(undefined, {}), /config describes no CLIP/);
  assert.match(await message(undefined, { ...tinyClip, text_cfg: { ...tinyClip.text_cfg, heads: 3 } }), /3 heads/);
  const fewer = { ...tinyClip, text_cfg: { ...tinyClip.text_cfg, vocab_size: 600 } };
  assert.match(await message(undefined, fewer), /has 517 tokens, .* was trained with 600/);
  assert.match(
    (await errorOf(() => load({ preprocessing: 'other' }))).message,
    /unknown preprocessing other: expected hps,/,
  );
  assert.is((await errorOf(() => load({ device: 'null' }))).code, 'ERR_DEVICE');

  await writeTinyClip(path, (key, values) => (key === 'visual.proj' ? values.fill(Number.NaN) : values));
  using model = await load({ weights: path });
  assert.match(
    (await errorOf(() => model.score([square], ['a']))).message,
    /bad\.safetensors: a score came out as NaN/,
  );
});

test.run();
