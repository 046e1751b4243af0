// Frozen parameters that come from a file: their values are read when a kernel wants them, and their plain bytes do not
// stay beside the packed copy. What a program computes must not depend on any of that.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readlinkSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { grad } from '../../lib/graph/grad.ts';
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { add, neg } from '../../lib/graph/ops/elementwise.ts';
import { linear, matmul } from '../../lib/graph/ops/matmul.ts';
import { accumulate } from '../../lib/graph/ops/optim.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { input, parameterLeaf, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, openDevice } from '../../lib/runtime/index.ts';
import { sameBits } from '../support/assert.ts';
import { random } from '../support/random.ts';
import { codeOf, errorOf } from '../support/runtime.ts';
import { type WeightUse, weightUses } from '../support/weight_uses.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-frozen-'));
let device: Device;
test.before(async () => {
  device = await openDevice('cpu', { threads: 2 });
});
test.after(() => {
  device.dispose();
  rmSync(folder, { recursive: true });
});

let files = 0;
const { next } = random(11);

/** A file with `count` random values of `dtype`, behind a few other bytes, and what they are as float32. */
function stored(count: number, dtype = 'F32'): { path: string; offset: number; dtype: string; values: Float32Array } {
  const path = join(folder, `weights${files++}`);
  // Multiples of 1/64 below 2, which a float16 holds.
  const values = Float32Array.from({ length: count }, () => (Math.floor(next() * 256) - 128) / 64);
  const half = (v: number): number => {
    const exponent = Math.floor(Math.log2(Math.abs(v)));
    const sign = v < 0 ? 0x8000 : 0;
    return v === 0 ? 0 : sign | ((exponent + 15) << 10) | ((Math.abs(v) / 2 ** exponent - 1) * 1024);
  };
  const bytes = dtype === 'F32' ? values : Uint16Array.from(values, half);
  writeFileSync(path, Buffer.concat([Buffer.alloc(13), Buffer.from(bytes.buffer)]));
  return { path, offset: 13, dtype, values };
}

const size = (t: Tensor): number => t.shape.reduce((a, b) => a * b, 1);
const noise = (n: number): Float32Array => Float32Array.from({ length: n }, () => next() - 0.5);

/** A linear layer of 8 to 16 whose weights lie in a file. */
async function layer(on = device) {
  const file = stored(16 * 8);
  const weight = parameterLeaf([16, 8], 'f32');
  const parameters = on.parameters();
  await parameters.load(weight, file, { frozen: true });
  const program = await on.compile({ outputs: { y: linear(input('x', [1, 8]), weight) } }, { parameters });
  const expected = Float32Array.from({ length: 16 }, (_, i) =>
    file.values.slice(8 * i, 8 * i + 8).reduce((a, b) => a + b),
  );
  return { file, weight, parameters, program, feeds: { x: new Float32Array(8).fill(1) }, expected };
}

const uses: Record<string, WeightUse> = {
  ...weightUses,
  'matmul of a batch': { shape: [40, 33], x: [3, 40, 9], build: (x, w) => matmul(x, w, { transposeA: true }) },
  '1x1 and a sum of the same weights': {
    shape: [70, 24, 1, 1],
    x: [1, 6, 6, 24],
    build: (x, w) => add(conv2d(x, w), sum(w)),
  },
};

for (const dtype of ['F32', 'F16']) {
  for (const [name, { shape, x, build }] of Object.entries(uses)) {
    test(`values read from ${dtype} when wanted give the bits of values in memory, also backwards: ${name}`, async () => {
      const [feed, weight] = [input('x', x), parameterLeaf(shape, 'f32')];
      const y = build(feed, weight);
      const graph = { outputs: { y, dx: grad(y, [feed])[0] } };
      const file = stored(size(weight), dtype);
      const feeds = { x: noise(size(feed)) };
      const results = [];
      for (const fromFile of [false, true]) {
        const parameters = device.parameters();
        if (fromFile) await parameters.load(weight, file, { frozen: true });
        else parameters.add(weight, { frozen: true, data: file.values });
        const program = await device.compile(graph, { parameters });
        results.push(await program.run(feeds), await program.run(feeds));
        sameBits(await parameters.read(weight), file.values, 'read');
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

const rss = (): number => process.memoryUsage().rss / 2 ** 20;

test('weights take memory once, only from the first run on, and none when their programs are gone', async () => {
  const weight = parameterLeaf([4096, 8192], 'f32'); // 128 MiB
  const file = stored(size(weight));
  const x = input('x', [1, 8192]);
  const feeds = { x: noise(8192) };
  const parameters = device.parameters();
  const before = rss();
  const grown = (): number => rss() - before;
  await parameters.load(weight, file, { frozen: true });
  const programs = [];
  for (const outputs of [{ y: linear(x, weight) }, { y: neg(linear(x, weight)) }]) {
    programs.push(await device.compile({ outputs }, { parameters }));
  }
  assert.ok(grown() < 16, `${grown()} MiB before the first run`);
  for (const { parameterBytes } of programs) assert.is(parameterBytes, 4 * size(weight));
  const [{ y }, { y: negative }] = [await programs[0].run(feeds), await programs[1].run(feeds)];
  assert.ok(y.every((v, i) => v === -negative[i]));
  assert.ok(grown() > 100 && grown() < 160, `${grown()} MiB for 128 MiB of weights`);
  programs[0].dispose();
  await programs[1].run(feeds);
  programs[1].dispose();
  assert.ok(grown() < 32, `${grown()} MiB after the programs are gone`);
  const again = await device.compile({ outputs: { y: linear(x, weight) } }, { parameters });
  sameBits((await again.run(feeds)).y, y, 'packed anew');
  again.dispose();
  parameters.dispose();
});

test('a file that is deleted, or replaced by renaming, still gives what was loaded', async () => {
  for (const remove of [(path: string) => rmSync(path), (path: string) => renameSync(stored(1).path, path)]) {
    const { file, program, feeds, expected, parameters, weight } = await layer();
    remove(file.path);
    sameBits((await program.run(feeds)).y, expected, 'y');
    sameBits(await parameters.read(weight), file.values, 'read');
  }
});

test('a file that changed before its values were wanted is an error that says so, until they are set anew', async () => {
  const changes = [
    ({ path }: { path: string }) => writeFileSync(path, Buffer.alloc(13 + 4 * 128)),
    ({ path }: { path: string }) => truncateSync(path, 100),
    ({ path }: { path: string }) => writeFileSync(path, ''),
  ];
  for (const change of changes) {
    const { file, program, feeds, parameters, weight } = await layer();
    change(file);
    for (const use of [() => program.run(feeds), () => parameters.read(weight), () => program.run(feeds)]) {
      const error = await errorOf(use);
      assert.is(error.code, 'ERR_WEIGHTS');
      assert.ok(error.message.startsWith(file.path), error.message);
      assert.match(error.message, /changed after its weights were loaded.*load them anew|cut short/);
    }
    parameters.write(weight, new Float32Array(128).fill(2));
    assert.is((await program.run(feeds)).y[5], 16);
  }
});

test('what was packed before the file changed goes on, and a new file under the same name is read anew', async () => {
  const { file, program, feeds, expected } = await layer();
  await program.run(feeds);
  writeFileSync(file.path, Buffer.alloc(13 + 4 * 128));
  sameBits((await program.run(feeds)).y, expected, 'y');

  const fresh = device.parameters();
  const weight = parameterLeaf([16, 8], 'f32');
  await fresh.load(weight, file, { frozen: true });
  assert.ok((await fresh.read(weight)).every((v) => v === 0));
});

test('a parameter that cannot be read stops a run before its first update', async () => {
  const { file, weight, parameters } = await layer();
  const [first, second] = [parameterLeaf([1], 'f32'), parameterLeaf([16, 8], 'f32')];
  for (const leaf of [first, second]) parameters.add(leaf);
  const one = input('one', [1]);
  const updates = [accumulate(one, [[first, one]]), accumulate(one, [[second, weight]])];
  const program = await device.compile({ outputs: {}, updates }, { parameters });
  truncateSync(file.path, 100);
  assert.is(await codeOf(() => program.run({ one: Float32Array.of(1) })), 'ERR_WEIGHTS');
  assert.is((await parameters.read(first))[0], 0);
});

test('a loaded parameter may be written: before it was read, while it is packed, and while it is held plain', async () => {
  const { weight, parameters, program, feeds } = await layer();
  const plain = await device.compile({ outputs: { y: neg(weight) } }, { parameters });
  for (const value of [1, 2, 3]) {
    parameters.write(weight, new Float32Array(128).fill(value));
    assert.is((await program.run(feeds)).y[0], 8 * value);
    assert.is((await plain.run()).y[0], -value);
  }
});

test('the null device reads nothing', async () => {
  const other = await openDevice('null');
  const { file, program, feeds } = await layer(other);
  truncateSync(file.path, 0);
  assert.is((await program.run(feeds)).y.length, 16);
  other.dispose();
});

test('bad slices are refused when they are loaded, not when they are read', async () => {
  const { path, offset } = stored(64);
  const pipe = join(folder, 'pipe');
  assert.is(spawnSync('mkfifo', [pipe]).status, 0);
  const parameters = device.parameters();
  const leaf = parameterLeaf([64], 'f32');
  const bad = [
    { path: join(folder, 'missing'), offset, dtype: 'F32' },
    { path: folder, offset: 0, dtype: 'F32' },
    { path: pipe, offset: 0, dtype: 'F32' },
    { path, offset: offset + 1, dtype: 'F32' },
    { path, offset, dtype: 'F64' },
    { path, offset, dtype: 'I64' },
    { path, offset: -1, dtype: 'F32' },
    { path, offset: 2 ** 53, dtype: 'F32' },
  ];
  for (const slice of bad) {
    const error = await errorOf(() => parameters.load(leaf, slice, { frozen: true }));
    assert.is(error.code, 'ERR_WEIGHTS', JSON.stringify(slice));
    assert.ok(error.message.startsWith(slice.path), error.message);
    assert.not(parameters.has(leaf));
  }
  // Values that may be refused for what they are cannot wait either.
  const long = parameterLeaf([1], 'i32');
  writeFileSync(path, BigInt64Array.of(2n ** 40n));
  assert.is(
    await codeOf(() => parameters.load(long, { path, offset: 0, dtype: 'I64' }, { frozen: true })),
    'ERR_WEIGHTS',
  );
});

test('a file is open once however many parameters it holds, and closed with the last of them', async () => {
  const { path, dtype } = stored(300);
  const open = (): number =>
    readdirSync('/proc/self/fd').filter((fd) => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`) === path;
      } catch {
        return false;
      }
    }).length;
  const parameters = device.parameters();
  for (let i = 0; i < 300; i++) {
    await parameters.load(parameterLeaf([1], 'f32'), { path, offset: 13 + 4 * i, dtype }, { frozen: true });
  }
  assert.is(open(), 1);
  parameters.dispose();
  assert.is(open(), 0);
});

test.run();
