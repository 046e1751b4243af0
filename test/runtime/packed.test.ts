// Frozen weights that are kept in 16 bits: programs compute what they would with weights rounded beforehand, in half the memory.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { grad } from '../../lib/graph/grad.ts';
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { cast } from '../../lib/graph/ops/elementwise.ts';
import { linear } from '../../lib/graph/ops/matmul.ts';
import { input, parameterLeaf } from '../../lib/graph/tensor.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { sameBits } from '../support/assert.ts';
import { random } from '../support/random.ts';
import { codeOf } from '../support/runtime.ts';
import { type WeightUse, weightUses } from '../support/weight_uses.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-packed-'));
let device: Device;
test.before(async () => {
  device = await openDevice('cpu', { threads: 2 });
});
test.after(() => {
  device.dispose();
  rmSync(folder, { recursive: true });
});

const { next } = random(12);
const noise = (n: number): Float32Array => Float32Array.from({ length: n }, () => next() - 0.5);

const uses: Record<string, WeightUse> = {
  ...weightUses,
  'linear of many rows and columns': { shape: [800, 500], x: [200, 500], build: linear },
  '1x1': { shape: [70, 24, 1, 1], x: [1, 6, 6, 24], build: conv2d },
};

for (const packed of ['bf16', 'f16'] as const) {
  for (const [name, { shape, x, build }] of Object.entries(uses)) {
    test(`${packed}: results and gradients are those of rounded weights, from a file and from memory: ${name}`, async () => {
      const [feed, weight] = [input('x', x), parameterLeaf(shape, 'f32')];
      const y = build(feed, weight);
      const graph = { outputs: { y, dx: grad(y, [feed])[0] } };
      const values = noise(weight.size);
      const { rounded } = await evaluate(
        device,
        { rounded: cast(cast(input('w', shape), packed), 'f32') },
        { w: values },
      );
      assert.ok(rounded.some((v, i) => v !== values[i]));
      const path = join(folder, 'weights');
      writeFileSync(path, values);
      const feeds = { x: noise(feed.size) };
      const results = [];
      for (const source of ['rounded', 'memory', 'file']) {
        const parameters = device.parameters(source === 'rounded' ? {} : { packed });
        if (source === 'file') await parameters.load(weight, { path, offset: 0, dtype: 'F32' }, { frozen: true });
        else parameters.add(weight, { frozen: true, data: source === 'memory' ? values : (rounded as Float32Array) });
        const program = await device.compile(graph, { parameters });
        results.push(await program.run(feeds), await program.run(feeds));
        sameBits(await parameters.read(weight), source === 'rounded' ? rounded : values, 'the parameter itself');
        program.dispose();
        parameters.dispose();
      }
      for (const { y, dx } of results) {
        sameBits(y, results[0].y, 'y');
        sameBits(dx, results[0].dx, 'dx');
      }
    });
  }
}

test('what is packed in 16 bits takes half the memory of float32, and by Winograd an eighth', async () => {
  for (const [name, share] of [
    ['linear of many rows and columns', 2],
    ['3x3 by Winograd', 8],
  ] as const) {
    const { shape, x, build } = uses[name];
    const weight = parameterLeaf(shape, 'f32');
    const bytes: number[] = [];
    for (const packed of [undefined, 'bf16'] as const) {
      const parameters = device.parameters({ packed });
      parameters.add(weight, { frozen: true });
      const program = await device.compile({ outputs: { y: build(input('x', x), weight) } }, { parameters });
      bytes.push(program.parameterBytes);
      assert.is(parameters.bytes, weight.size * (packed ? 2 : 4));
    }
    assert.ok(Math.abs(bytes[0] / bytes[1] / share - 1) < 0.4, `${name}: ${bytes}`);
  }
});

test('parameters that train, and those of other types, are kept as they are', async () => {
  const [trained, wide] = [parameterLeaf([32, 32], 'f32'), parameterLeaf([32, 32], 'f64')];
  const parameters = device.parameters({ packed: 'bf16' });
  const values = noise(trained.size);
  parameters.add(trained, { data: values });
  parameters.add(wide, { frozen: true, data: Float64Array.from(values) });
  const plain = device.parameters();
  plain.add(trained, { frozen: true, data: values });
  plain.add(wide, { frozen: true, data: Float64Array.from(values) });
  const x = input('x', [4, 32]);
  const outputs = { narrow: linear(x, trained), wide: linear(cast(x, 'f64'), wide) };
  const feeds = { x: noise(x.size) };
  const [own, other] = [
    await evaluate(device, outputs, feeds, parameters),
    await evaluate(device, outputs, feeds, plain),
  ];
  sameBits(own.narrow, other.narrow, 'f32');
  sameBits(own.wide, other.wide, 'f64');
});

test('only 16 bits can be packed for float32', async () => {
  const parameters = device.parameters({ packed: 'u8' as 'bf16' });
  assert.is(await codeOf(() => parameters.add(parameterLeaf([2], 'f32'), { frozen: true })), 'ERR_DTYPE');
});

test.run();
