// How pairs become batches: both pictures of a pair laid down alike, in each of the eight ways.
import { join } from 'node:path';
import sharp from 'sharp';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { Pictures } from '../../lib/reward/pictures.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import { ClipTokenizer } from '../../lib/text/tokenizer.ts';
import type { Label } from '../../lib/train/labels.ts';
import { PreferenceData, ways } from '../../lib/train/preference_data.ts';
import { temporaryFolder } from '../restore/support.ts';
import { writeTokenizer } from '../reward/support.ts';
import { random } from '../support/random.ts';

const test = suite('pairs in batches');
const folder = temporaryFolder();
const size = 12;

test('each of the eight ways is a mirroring, then a turn, of both pictures', async () => {
  const { next } = random(3);
  const raw = { raw: { width: 9, height: size, channels: 3 as const } };
  const paths = ['a', 'b'].map((name) => join(folder, `${name}.png`));
  for (const path of paths) {
    const data = Uint8Array.from({ length: 9 * size * 3 }, () => 255 * next());
    await sharp(data, raw).png().toFile(path);
  }
  using device = await openDevice('cpu', { threads: 1 });
  using pictures = new Pictures(device, size, 'hps');
  const data = new PreferenceData(pictures, await ClipTokenizer.load(writeTokenizer(folder)), 8, 'low');
  const label: Label = {
    ...{ pair: 'one', person: 'p', a: paths[0], b: paths[1], share: 1, source: 'people', margin: 0, split: 'train' },
  };
  const pairs = Array.from({ length: ways }, () => label);
  const { images } = await data.batch(pairs, (i) => i);
  const count = size * size * 3;
  const seen = new Set<string>();
  for (let way = 0; way < ways; way++) {
    for (const [side, path] of paths.entries()) {
      const mirrored = sharp(path).flop((way & 1) > 0);
      const upsideDown = sharp(
        await mirrored
          .flip((way & 2) > 0)
          .png()
          .toBuffer(),
      );
      // Sharp turns last: upside down and a quarter exchange the axes.
      const expected = way & 4 ? upsideDown.flip().rotate(90) : upsideDown;
      const found = images.subarray((2 * way + side) * count, (2 * way + side + 1) * count);
      const values = await pictures.prepare(await expected.png().toBuffer());
      assert.is(found.join(), values.join(), `way ${way}, picture ${side}`);
      seen.add(found.join());
    }
  }
  assert.is(seen.size, 2 * ways);
  assert.equal((await data.batch([label])).images, images.slice(0, 2 * count));
});

test.run();
