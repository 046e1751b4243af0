import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { planTiles, starts } from '../../lib/restore/tiles.ts';
import { distance, picture } from './support.ts';

const test = suite('tiles');

test('tiles cover a length from end to end, a quarter shared at least', () => {
  for (const length of [32, 33, 56, 57, 100, 1000]) {
    const at = starts(length, 32);
    assert.is(at[0], 0);
    assert.is(at.at(-1), length - 32);
    for (let i = 1; i < at.length; i++) {
      const shared = at[i - 1] + 32 - at[i];
      assert.ok(shared >= 8 - 1 && shared < 32, `${length}: ${shared} pixels shared`);
    }
  }
  assert.equal(starts(32, 32), [0]);
});

test('untouched tiles become the picture again, of any size', async () => {
  for (const [width, height] of [
    [32, 32],
    [33, 32],
    [100, 70],
    [5, 200],
    [1, 1],
  ]) {
    const data = await picture(width, height).raw().toBuffer();
    const plan = await planTiles({ width, height, data }, 32);
    assert.ok(plan.crops.every((crop) => crop.data.length === 32 * 32 * 3));
    const joined = await plan.compose(plan.crops);
    assert.equal([joined.width, joined.height], [width, height]);
    assert.ok(distance(joined.data, data) <= 2, `${width}x${height}`);
  }
});

test('where tiles differ, one fades into the other', async () => {
  const plan = await planTiles({ width: 56, height: 32, data: new Uint8Array(56 * 32 * 3) }, 32);
  const [left, right] = plan.crops.map((crop, i) => ({
    ...crop,
    data: new Uint8Array(crop.data.length).fill(200 * i),
  }));
  const { data } = await plan.compose([left, right]);
  const row = Array.from({ length: 56 }, (_, x) => data[(5 * 56 + x) * 3]);
  assert.is(row[23], 0);
  assert.is(row[32], 200);
  for (let x = 24; x < 32; x++)
    assert.ok(Math.abs(row[x] - row[x - 1] - 25) <= 13, `a step of ${row[x] - row[x - 1]} at ${x}`);
});

test.run();
