import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { arrayOf } from '../../lib/graph/dtype.ts';
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { reshape } from '../../lib/graph/ops/layout.ts';
import { constant, type Tensor } from '../../lib/graph/tensor.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';

// Packed copies of frozen weights are kept with the buffer, which reshaped weights share.
for (const [a, b, how] of [
  [8, 4, 'direct'],
  [64, 32, 'Winograd'],
] as const) {
  test(`one frozen buffer under two shapes gives each convolution its own weights (${how})`, async () => {
    using device = await openDevice('cpu');
    const values = arrayOf('f32', a * b * 9).map((_, i) => Math.sin(i)) as Float32Array;
    const image = (channels: number): Tensor =>
      constant(
        new Float32Array(32 * 32 * channels).map((_, i) => Math.cos(i)),
        [1, 32, 32, channels],
        'f32',
      );
    const run = (weight: Tensor): Tensor => conv2d(image(weight.shape[1]), weight, undefined, { padding: 1 });
    const shared = constant(values, [a, b, 3, 3], 'f32');
    const outputs = await evaluate(device, {
      first: run(shared),
      second: run(reshape(shared, [b, a, 3, 3])),
      alone: run(constant(values, [b, a, 3, 3], 'f32')),
    });
    assert.ok(outputs.first.length !== outputs.second.length);
    // Compared without uvu's diff, which takes minutes on arrays of this length.
    assert.ok(
      outputs.second.every((v, i) => v === outputs.alone[i]),
      "the second one used the first one's weights",
    );
  });
}

test.run();
