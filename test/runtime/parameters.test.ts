import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { arrayOf, type DType, type TypedArray } from '../../lib/graph/dtype.ts';
import { add, affine, cast, full, neg } from '../../lib/graph/ops/elementwise.ts';
import { concat, transpose } from '../../lib/graph/ops/layout.ts';
import { linear, matmul } from '../../lib/graph/ops/matmul.ts';
import { accumulate, assign, globalNorm } from '../../lib/graph/ops/optim.ts';
import { input, parameterLeaf } from '../../lib/graph/tensor.ts';
import { type Device, evaluate, openDevice, type Parameters } from '../../lib/runtime/index.ts';
import { fromFloat32, toFloat32 } from '../../lib/weights/half.ts';
import { sameBits } from '../support/assert.ts';
import { codeOf, errorOf } from '../support/runtime.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-parameters-'));
let device: Device;
let parameters: Parameters;
test.before(async () => {
  device = await openDevice('cpu', { threads: 2 });
  parameters = device.parameters();
});
test.after(() => {
  device.dispose();
  rmSync(folder, { recursive: true });
});

/** Writes `bytes` at `offset` of a file and loads them into a fresh parameter of `length` elements. */
async function load(bytes: ArrayBufferView, dtype: string, to: DType, length: number, offset = 0): Promise<TypedArray> {
  const path = join(folder, 'weights');
  const { buffer, byteOffset, byteLength } = bytes;
  writeFileSync(
    path,
    Buffer.concat([Buffer.alloc(offset, 0xab), Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength)]),
  );
  const leaf = parameterLeaf([length], to);
  await parameters.load(leaf, { path, offset, dtype });
  return parameters.read(leaf);
}

/** The value of a 16-bit float with `exponentBits`, by the definition of IEEE 754: independent of the native code. */
function smallFloat(bits: number, exponentBits: number): number {
  const fractionBits = 15 - exponentBits;
  const bias = 2 ** (exponentBits - 1) - 1;
  const exponent = (bits >> fractionBits) & (2 ** exponentBits - 1);
  const fraction = (bits & (2 ** fractionBits - 1)) / 2 ** fractionBits;
  const sign = bits & 0x8000 ? -1 : 1;
  if (exponent === 2 ** exponentBits - 1) return fraction ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return exponent === 0 ? sign * fraction * 2 ** (1 - bias) : sign * (1 + fraction) * 2 ** (exponent - bias);
}

test('every F16 and BF16 value becomes the same number, subnormals, infinities and NaN included', async () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i);
  for (const [dtype, exponentBits] of [
    ['F16', 5],
    ['BF16', 8],
  ] as const) {
    for (const to of ['f32', 'f64'] as const) {
      const got = await load(all, dtype, to, 65536);
      all.forEach((bits) => {
        const expected = smallFloat(bits, exponentBits);
        if (!Object.is(got[bits], expected))
          assert.unreachable(`${dtype} ${bits} gave ${got[bits]} in place of ${expected}`);
      });
    }
  }
});

const tricky = [
  0,
  -0,
  1,
  -1.5,
  0.1,
  1e-45,
  1e-40,
  2 ** -149 * 1.5,
  3.4e38,
  1e39,
  5e-324,
  Infinity,
  -Infinity,
  NaN,
  1 + 2 ** -24,
];

test('F64 rounds to float32 as the language does, and F32 and F64 keep their bits otherwise', async () => {
  const doubles = Float64Array.from(tricky);
  const floats = Float32Array.from(tricky);
  sameBits(await load(doubles, 'F64', 'f32', tricky.length), floats, 'F64 to f32');
  sameBits(await load(doubles, 'F64', 'f64', tricky.length), doubles, 'F64');
  sameBits(await load(floats, 'F32', 'f32', tricky.length), floats, 'F32');
  sameBits(await load(floats, 'F32', 'f64', tricky.length), Float64Array.from(floats), 'F32 to f64');
});

test('all stored floats round to 16 bits, ties to even', async () => {
  const edges = [
    65519.99,
    65520,
    2 ** -14 * 1.5,
    2 ** -24 * 0.5,
    2 ** -24 * 0.51,
    2 ** -24 * 1.5,
    1 + 2 ** -11,
    1 + 2 ** -8,
  ];
  const floats = Float32Array.from([...tricky, ...edges, ...edges.map((x) => -x)]);
  for (const [dtype, type] of [
    ['f16', 'F16'],
    ['bf16', 'BF16'],
  ] as const) {
    const expected = fromFloat32(floats, type);
    sameNumbers(await load(floats, 'F32', dtype, floats.length), expected, `F32 to ${dtype}`);
    sameNumbers(await load(Float64Array.from(floats), 'F64', dtype, floats.length), expected, `F64 to ${dtype}`);
    sameBits(await load(expected, type, dtype, floats.length), expected, `${type} to ${dtype}`);
    const x = input('x', [floats.length]);
    const { y, z } = await evaluate(device, { y: cast(x, dtype), z: cast(cast(x, dtype), 'f32') }, { x: floats });
    sameNumbers(y, expected, `cast to ${dtype}`);
    sameNumbers(z, toFloat32(expected, type), `cast from ${dtype}`);
  }
  const f16 = fromFloat32(floats, 'F16');
  sameNumbers(await load(f16, 'F16', 'bf16', f16.length), fromFloat32(toFloat32(f16, 'F16'), 'BF16'), 'F16 to bf16');
});

/** The bits of `tricky` and what follows, where any NaN is as good as another. */
function sameNumbers(actual: TypedArray, expected: TypedArray, what: string): void {
  const nan = tricky.findIndex(Number.isNaN);
  sameBits(actual.subarray(0, nan), expected.subarray(0, nan), what);
  sameBits(actual.subarray(nan + 1), expected.subarray(nan + 1), what);
}

test('the CPU moves and converts 16 bits, rounds what it computes of them, and updates nothing in them', async () => {
  const x = cast(input('x', [2, 3]), 'bf16');
  const feeds = { x: Float32Array.of(1, 2, 3, 4, 5, 6) };
  const moved = concat([transpose(x, [1, 0]), full([3, 1], 7, 'bf16')], 1);
  const { y } = await evaluate(device, { y: cast(moved, 'f32') }, feeds);
  assert.equal([...y], [1, 4, 7, 2, 5, 7, 3, 6, 7]);
  const product = matmul(x, cast(input('w', [3, 1]), 'bf16'));
  const outputs = { product: cast(product, 'f32'), norm: globalNorm([x]) };
  const { product: rounded, norm } = await evaluate(device, outputs, { ...feeds, w: Float32Array.of(256, 1, 1) });
  assert.equal([...rounded], [260, 1032], '261 and 1035 take more than eight bits');
  assert.is(norm[0], Math.fround(Math.sqrt(91)), 'statistics are float32');
  const narrow = parameterLeaf([2], 'bf16');
  parameters.add(narrow);
  const ok = full([1], 1, 'bf16');
  const updates = [assign(ok, [[narrow, affine(narrow, 2)]])];
  const error = await errorOf(() => device.compile({ outputs: {}, updates }, { parameters }));
  assert.is(error.code, 'ERR_DTYPE');
  assert.match(error.message, /assign cannot update bf16\[2\] on the CPU: keep it in f32/);
});

test('I64 values that fit become 32-bit, others are refused', async () => {
  const edge = [0, -1, 2 ** 31 - 1, -(2 ** 31)];
  const stored = BigInt64Array.from(edge.map(BigInt));
  sameBits(await load(stored, 'I64', 'i32', 4), Int32Array.from(edge), 'I64');
  for (const v of [2 ** 31, -(2 ** 31) - 1, 2 ** 62]) {
    assert.is(await codeOf(() => load(BigInt64Array.of(0n, BigInt(v)), 'I64', 'i32', 2)), 'ERR_WEIGHTS');
  }
  sameBits(await load(Int32Array.from(edge), 'I32', 'i32', 4), Int32Array.from(edge), 'I32');
  sameBits(await load(Uint8Array.of(0, 7, 255), 'U8', 'u8', 3), Uint8Array.of(0, 7, 255), 'U8');
});

test('values are read from any offset, aligned or not, and in many blocks', async () => {
  const n = 3 * 65536 + 17;
  const values = Uint16Array.from({ length: n }, (_, i) => 0x3c00 + (i % 1024));
  for (const offset of [1, 4097]) {
    const got = await load(values, 'F16', 'f32', n, offset);
    assert.ok(got.every((v, i) => v === 1 + (i % 1024) / 1024));
  }
});

test('a file that is missing, short, no file, or of another type is one error that names it, and leaves no parameter', async () => {
  const path = join(folder, 'short');
  writeFileSync(path, Buffer.alloc(100));
  const bad = [
    [join(folder, 'missing'), 0, 'F32'],
    [folder, 0, 'F32'],
    [path, 0, 'F32'],
    [path, 0, 'F16'],
    [path, 1e15, 'F32'],
    [path, -1, 'F32'],
    [path, 0, 'I64'],
    [path, 0, 'Q4'],
  ] as const;
  const leaf = parameterLeaf([64], 'f32');
  for (const [path, offset, dtype] of bad) {
    const error = await errorOf(() => parameters.load(leaf, { path, offset, dtype }));
    assert.is(error.code, 'ERR_WEIGHTS', error.message);
    assert.match(error.message, path);
    assert.not(parameters.has(leaf));
  }
  writeFileSync(path, Buffer.alloc(256));
  await parameters.load(leaf, { path, offset: 0, dtype: 'F32' });
});

test('written values are read back, of every dtype, also empty ones', async () => {
  for (const dtype of ['f32', 'f64', 'bf16', 'f16', 'i32', 'u8'] as const) {
    for (const length of [0, 1, 1000]) {
      const leaf = parameterLeaf([length], dtype);
      parameters.add(leaf);
      assert.equal(await parameters.read(leaf), arrayOf(dtype, length), 'zeros at first');
      const data = arrayOf(dtype, length).map((_: number, i: number) => i % 251) as TypedArray;
      parameters.write(leaf, data);
      sameBits(await parameters.read(leaf), data, dtype);
    }
  }
  assert.ok(parameters.bytes >= 1000 * (4 + 8 + 2 + 2 + 4 + 1));
});

test('values of another dtype or size are refused', async () => {
  const leaf = parameterLeaf([2], 'f32');
  assert.is(await codeOf(() => parameters.write(leaf, new Float32Array(2))), 'ERR_PROGRAM', 'never added');
  parameters.add(leaf);
  assert.is(await codeOf(() => parameters.add(leaf)), 'ERR_PROGRAM', 'added twice');
  for (const data of [new Float64Array(2), new Float32Array(3), new Int32Array(2)]) {
    assert.is(await codeOf(() => parameters.write(leaf, data)), 'ERR_WEIGHTS');
  }
});

test('writes and reads take their place among the runs, in the order of the calls', async () => {
  const leaf = parameterLeaf([4], 'f32');
  parameters.add(leaf);
  const one = input('one', [1]);
  const graph = { outputs: { y: neg(leaf) }, updates: [accumulate(one, [[leaf, add(leaf, 0)]])] };
  const program = await device.compile(graph, { parameters });
  const seen: Promise<TypedArray>[] = [];
  for (let i = 1; i <= 20; i++) {
    const data = new Float32Array(4).fill(i);
    parameters.write(leaf, data);
    data.fill(-1);
    seen.push(
      program.run({ one: Float32Array.of(1) }).then(({ y }) => y),
      parameters.read(leaf),
    );
  }
  (await Promise.all(seen)).forEach((values, k) => {
    const i = (k >> 1) + 1;
    assert.is(values[3], k % 2 ? 2 * i : -i);
  });
  program.dispose();
});

test('a frozen parameter may be written whole, also after it was packed, and never updated', async () => {
  const [frozen, x] = [parameterLeaf([8, 16], 'f32'), input('x', [3, 16])];
  parameters.add(frozen, { frozen: true, data: new Float32Array(128).fill(1) });
  const program = await device.compile({ outputs: { y: linear(x, frozen) } }, { parameters });
  const feeds = { x: new Float32Array(48).fill(1) };
  assert.is((await program.run(feeds)).y[0], 16);
  parameters.write(frozen, new Float32Array(128).fill(2));
  assert.is((await program.run(feeds)).y[0], 32);
  program.dispose();

  const graph = { outputs: {}, updates: [accumulate(input('one', [1]), [[frozen, input('g', [8, 16])]])] };
  const error = await errorOf(() => device.compile(graph, { parameters }));
  assert.is(error.code, 'ERR_PROGRAM');
  assert.match(error.message, /accumulate writes f32\[8,16\], a frozen parameter/);
});

test('a parameter too large for any machine is refused', async () => {
  assert.is(await codeOf(() => parameters.add(parameterLeaf([2 ** 52], 'f32'))), 'ERR_OUT_OF_MEMORY');
  assert.is(await codeOf(() => parameters.add(parameterLeaf([2 ** 40, 2 ** 40], 'f32'))), 'ERR_SHAPE');
});

test.run();
