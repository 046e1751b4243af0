// timeout: 600 s
// The CUDA backend's host code over the stand-in for CUDA's runtime: memory, streams, recorded segments, and what can go wrong.
import { spawnSync } from 'node:child_process';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { conv2d } from '../../lib/graph/ops/conv2d.ts';
import { add, mul } from '../../lib/graph/ops/elementwise.ts';
import { matmul } from '../../lib/graph/ops/matmul.ts';
import { accumulate } from '../../lib/graph/ops/optim.ts';
import { constant, input, parameterLeaf, scope, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, openDevice } from '../../lib/runtime/index.ts';
import { buildLibrary } from '../simt/build.ts';
import { codeOf, errorOf } from '../support/runtime.ts';

process.env.REFL_EMU_LIB = await buildLibrary();
const setting = (name: string, value?: string): void => {
  if (value === undefined) delete process.env[`REFL_EMU_${name}`];
  else process.env[`REFL_EMU_${name}`] = value;
};
test.after.each(() => {
  for (const name of ['DEVICES', 'ARCH', 'MEMORY', 'FAIL']) setting(name);
});

const open = (): Promise<Device> => openDevice('emu:0');
const vector = (...values: number[]): Tensor => constant(Float32Array.from(values), [values.length], 'f32');

test('without a driver, or with one too old, a device says what to install, and the CPU works', () => {
  const said = (devices: string): string => {
    const code = `
      import { evaluate, openDevice } from './lib/runtime/index.ts';
      import { full } from './lib/graph/ops/elementwise.ts';
      const [code, message] = await openDevice('emu:0').catch((error) => [error.code, error.message]);
      const cpu = await openDevice('cpu');
      const { y } = await evaluate(cpu, { y: full([1], 7) }, {});
      cpu.dispose();
      console.log(JSON.stringify([code, message, y[0]]));`;
    const { stdout, stderr } = spawnSync(process.execPath, ['--import', 'tsx', '--input-type=module', '-e', code], {
      env: { ...process.env, REFL_EMU_DEVICES: devices },
      encoding: 'utf8',
    });
    assert.is(stderr, '');
    const [kind, message, seven] = JSON.parse(stdout);
    assert.equal([kind, seven], ['ERR_DEVICE', 7]);
    assert.ok(message.startsWith('the device emu:0 is not usable: no CUDA device: '), message);
    return message;
  };
  assert.match(
    said('driver'),
    'there is no NVIDIA driver (libcuda.so.1); install one that supports CUDA 13.0; use cpu',
  );
  assert.match(said('old'), 'the NVIDIA driver supports CUDA 12.4 and the library needs CUDA 13.0; install a newer');
  for (const none of ['none', '0']) assert.match(said(none), 'the driver lists none; see what nvidia-smi says');
});

test('a device that is not there or too old is refused with the reason', async () => {
  const said = async (name = 'emu:0'): Promise<string> => {
    const error = await errorOf(() => openDevice(name));
    assert.is(error.code, 'ERR_DEVICE');
    return error.message;
  };
  assert.match(await said('emu:1'), 'the device emu:1 is not usable: the CUDA library lists 1 of them; use cpu');
  setting('ARCH', '75');
  assert.match(await said(), 'emulated device (sm_75, 8.6 GB) is older than the kernels, which need sm_80');
});

test('feeds, constants and outputs pass through staging memory whole', async () => {
  using device = await open();
  const count = 3_000_001; // 12 MB: three parts of the staging memory
  const x = input('x', [count]);
  using program = await device.compile({ outputs: { y: add(x, vector(1)), x: mul(x, vector(2)) } });
  for (let run = 0; run < 3; run++) {
    const values = Float32Array.from({ length: count }, (_, i) => (i % 65536) + run);
    const { y, x: twice } = await program.run({ x: values });
    assert.ok(values.every((v, i) => y[i] === v + 1 && twice[i] === 2 * v));
  }
});

/** x + steps, of shape [4, 1], in a few segments: products with one keep the additions from becoming chains. */
const steps = (x: Tensor, count: number): Tensor => {
  const one = constant(Float32Array.of(1), [1, 1], 'f32');
  const step = (t: Tensor, i: number): Tensor => scope(`step${i}`, () => add(matmul(t, one), vector(1)));
  return Array.from({ length: count }).reduce<Tensor>((t, _, i) => step(t, i), x);
};

test('taps, progress and aborting act between segments, also of recorded runs', async () => {
  using device = await open();
  const x = input('x', [4, 1]);
  const half = steps(x, 40);
  using program = await device.compile({ outputs: { y: steps(half, 2000) }, taps: { half } });
  for (let run = 0; run < 3; run++) {
    const seen: unknown[] = [];
    const { y } = await program.run(
      { x: new Float32Array(4) },
      { tap: (name, values) => seen.push([name, values[0]]) },
    );
    assert.equal([seen, y[3]], [[['half', 40]], 2040]);
  }
  const controller = new AbortController();
  const aborted = program.run({ x: new Float32Array(4) }, { signal: controller.signal, tap: () => controller.abort() });
  assert.is((await errorOf(() => aborted)).name, 'AbortError');
  assert.is((await program.run({ x: Float32Array.of(5, 5, 5, 5) })).y[0], 2045);
});

test('a frozen weight is packed once and anew when it is written, a trainable one at every run', async () => {
  using device = await open();
  using parameters = device.parameters();
  const shape = [2, 2, 3, 3];
  const [frozen, trainable] = [parameterLeaf(shape, 'f32'), parameterLeaf(shape, 'f32')];
  parameters.add(frozen, { frozen: true });
  parameters.add(trainable);
  const x = input('x', [1, 3, 3, 2]);
  const outputs = { a: conv2d(x, frozen, undefined), b: conv2d(x, trainable, undefined) };
  using program = await device.compile({ outputs }, { parameters });
  // One pixel is left of a 3x3 image, so each output is the sum of its weights.
  const image = new Float32Array(18).fill(1);
  for (const value of [0, 1, 2, 3]) {
    const weight = Float32Array.from({ length: 36 }, (_, i) => value * (i < 18 ? 1 : 10));
    if (value) for (const leaf of [frozen, trainable]) parameters.write(leaf, weight);
    for (let run = 0; run < 3; run++) {
      const { a, b } = await program.run({ x: image });
      assert.equal(
        [[...a], [...b]],
        [
          [18 * value, 180 * value],
          [18 * value, 180 * value],
        ],
      );
    }
  }
});

test('updates write parameters, which read back', async () => {
  using device = await open();
  using parameters = device.parameters();
  const total = parameterLeaf([3], 'f32');
  parameters.add(total);
  const update = accumulate(input('scale', [1]), [[total, input('x', [3])]]);
  using program = await device.compile({ outputs: {}, updates: [update] }, { parameters });
  for (let i = 1; i <= 4; i++) await program.run({ scale: Float32Array.of(i), x: Float32Array.of(1, 2, 3) });
  assert.equal([...(await parameters.read(total))], [10, 20, 30]);
});

test('what does not fit is refused with the bytes needed and free, before anything runs', async () => {
  setting('MEMORY', '1000000');
  using device = await open();
  const x = input('x', [1000, 1000]);
  const { code, message } = await errorOf(() => device.compile({ outputs: { y: matmul(x, x) } }));
  assert.is(code, 'ERR_OUT_OF_MEMORY');
  assert.match(
    message,
    /^the program's tensors needs \d{7} bytes of the device's memory, 1000000 of 1000000 are free; use a smaller image or batch, or cpu$/,
  );
  using small = await device.compile({ outputs: { y: add(input('x', [2]), vector(1)) } });
  assert.equal([...(await small.run({ x: Float32Array.of(1, 2) })).y], [2, 3]);
});

test('disposing gives memory back at once: 300 programs of which two would fit', async () => {
  setting('MEMORY', '100000');
  using device = await open();
  for (let i = 0; i < 300; i++) {
    using program = await device.compile({ outputs: { y: add(input('x', [5000]), vector(i)) } });
    assert.is((await program.run({ x: new Float32Array(5000) })).y[4999], i);
  }
});

test('a library without code for the device says so, and other programs go on', async () => {
  using device = await open();
  using program = await device.compile({ outputs: { y: scope('layer', () => add(input('x', [2]), vector(1))) } });
  const run = async (on: typeof program) => [...(await on.run({ x: Float32Array.of(1, 2) })).y];
  setting('FAIL', 'image 1');
  const { code, message } = await errorOf(() => run(program));
  assert.equal(code, 'ERR_DEVICE');
  assert.match(message, /^layer: add: cudaErrorNoKernelImageForDevice/);
  assert.match(message, 'built without kernels for the emulated device (sm_90');
  assert.match(message, 'build it for that with npm run build:cuda, or use cpu');
  setting('FAIL');
  assert.equal(await run(program), [2, 3]);
  using cpu = await openDevice('cpu');
  using same = await cpu.compile({ outputs: { y: add(input('x', [2]), vector(1)) } });
  assert.equal(await run(same), [2, 3]);
});

test('2^31 elements are refused by name, before there is memory for them', async () => {
  using device = await open();
  const x = input('x', [2 ** 16, 2 ** 15]);
  const { code, message } = await errorOf(() => device.compile({ outputs: { y: scope('layer', () => add(x, x)) } }));
  const why = 'layer: add has 2147483648 elements, CUDA kernels index 2^31; use a smaller image or batch, or cpu';
  assert.equal([code, message], ['ERR_SHAPE', why]);
});

test('nothing at all, and views that begin anywhere, go through as on the CPU', async () => {
  const outputs = { y: add(input('x', [5]), vector(1)), none: matmul(input('none', [0, 4]), input('four', [4, 3])) };
  const bytes = new Float32Array(12).map((_, i) => i);
  const feeds = { x: bytes.subarray(1, 6), none: bytes.subarray(3, 3), four: bytes.subarray(0) };
  for (const name of ['emu:0', 'cpu']) {
    using device = await openDevice(name);
    using program = await device.compile({ outputs });
    const { y, none } = await program.run(feeds);
    assert.equal([[...y], none.length], [[2, 3, 4, 5, 6], 0], name);
  }
});

test('float64 is refused by name', async () => {
  using device = await open();
  const x = input('x', [2], 'f64');
  const { code, message } = await errorOf(() => device.compile({ outputs: { y: scope('layer', () => mul(x, x)) } }));
  assert.equal([code, message], ['ERR_DTYPE', 'layer: mul has no CUDA kernel for f64']);
});

// The last: a lost device stays lost to its process.
test('a device lost in mid-run is a typed error, then and later, and the CPU still works', async () => {
  const device = await open();
  const program = await device.compile({ outputs: { y: steps(input('x', [4, 1]), 8) } });
  const run = () => program.run({ x: new Float32Array(4) });
  assert.is((await run()).y[0], 8);
  setting('FAIL', 'launch 5');
  const { code, message } = await errorOf(run);
  assert.is(code, 'ERR_DEVICE');
  assert.match(message, 'the device was lost while');
  assert.match(message, 'as REFL_EMU_FAIL asks');
  setting('FAIL');
  assert.is(await codeOf(run), 'ERR_DEVICE');
  assert.is(await codeOf(() => device.compile({ outputs: { y: steps(input('x', [4, 1]), 1) } })), 'ERR_DEVICE');
  program.dispose();
  device.dispose();
  assert.is(await codeOf(open), 'ERR_DEVICE');
  using cpu = await openDevice('cpu');
  using sum = await cpu.compile({ outputs: { y: steps(input('x', [4, 1]), 8) } });
  assert.is((await sum.run({ x: new Float32Array(4) })).y[0], 8);
});

test.run();
