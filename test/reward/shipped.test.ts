import { readFile, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { frmDemo } from '../../lib/demo/settings.ts';
import { decodeImage, encodePng } from '../../lib/image/picture.ts';
import { filters } from '../../lib/restore/filters.ts';
import { Restorer } from '../../lib/restore/restorer.ts';
import { RewardModel } from '../../lib/reward/model.ts';
import { shippedReward } from '../../lib/reward/shipped.ts';
import { byteTokenizer } from '../../lib/text/vocabulary.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';

const test = suite('shipped reward model');
const samples = new URL('../../samples', import.meta.url).pathname;

test('its files are what the demonstration makes', async () => {
  const { metadata } = await openSafetensors(shippedReward.weights);
  assert.equal(JSON.parse(metadata.config), frmDemo.clip);
  assert.is(metadata.step, String(frmDemo.steps));
  assert.ok((await stat(shippedReward.weights)).size < 8e6);
  assert.is(await readFile(shippedReward.tokenizer, 'utf8'), byteTokenizer());
});

test('it prefers restored faces to damaged ones, of people whom it never saw', async () => {
  using restorer = await Restorer.load({ device: 'cpu', threads: 2 });
  using model = await RewardModel.load({ ...shippedReward, device: 'cpu', threads: 2 });
  for (const name of ['portrait-1.jpg', 'portrait-2.jpg']) {
    const damaged = await decodeImage(join(samples, name));
    const { image } = await restorer.restore(join(samples, name), { aligned: true });
    const pictures = [image, await encodePng(damaged), await encodePng(await filters.sharpen(damaged))];
    const [restored, ...others] = await model.score(pictures, [shippedReward.caption]);
    for (const other of others) assert.ok(restored.score > other.score, `${name}: ${restored.score} ${other.score}`);
  }
});

test.run();
