import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ReflError } from '../../lib/errors.ts';
import { embedding } from '../../lib/graph/ops/embedding.ts';
import { input, scope } from '../../lib/graph/tensor.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';

const device = await openDevice('cpu');
test.after(() => device.dispose());

test('an index outside of the table fails the run, and the device lives on', async () => {
  const y = scope('tokens', () => embedding(input('table', [3, 2]), input('indices', [2], 'i32')));
  const table = Float32Array.of(1, 2, 3, 4, 5, 6);
  for (const bad of [3, -1, 2 ** 31 - 1]) {
    try {
      await evaluate(device, { y }, { table, indices: Int32Array.of(0, bad) });
      assert.unreachable();
    } catch (error) {
      assert.instance(error, ReflError);
      assert.is((error as ReflError).code, 'ERR_FEED');
      assert.match((error as ReflError).message, `tokens: embedding: index ${bad} at position 1`);
    }
  }
  assert.equal((await evaluate(device, { y }, { table, indices: Int32Array.of(2, 0) })).y, Float32Array.of(5, 6, 1, 2));
});

test.run();
