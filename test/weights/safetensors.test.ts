import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { ReflError } from '../../lib/errors.ts';
import { fromFloat32, toFloat32 } from '../../lib/weights/half.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';
import { type Source, writeSafetensors } from '../../lib/weights/write.ts';

const test = suite('safetensors', { folder: '' });
test.before((context) => {
  context.folder = mkdtempSync(join(tmpdir(), 'refl-weights-'));
});
test.after(({ folder }) => rmSync(folder, { recursive: true }));

/** A file of the given header and number of data bytes; `claim` stands in for the header's true length. */
function craft(folder: string, header: string | Buffer, bytes: number, claim?: bigint): string {
  const text = Buffer.from(header);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(claim ?? BigInt(text.length));
  const path = join(folder, 'crafted.safetensors');
  writeFileSync(path, Buffer.concat([length, text, Buffer.alloc(bytes)]));
  return path;
}

async function rejection(promise: Promise<unknown>): Promise<ReflError> {
  try {
    await promise;
  } catch (error) {
    assert.instance(error, ReflError);
    return error as ReflError;
  }
  throw new Error('nothing was thrown');
}

const f32 = (from: number, to: number, shape = [(to - from) / 4]): string =>
  JSON.stringify({ dtype: 'F32', shape, data_offsets: [from, to] });

const hostile: Record<string, { header?: string | Buffer; bytes?: number; claim?: bigint; says: RegExp }> = {
  'a header longer than the file': { header: '{}', claim: 1000n, says: /claims 1000 bytes, but the file has 10/ },
  'a header beyond 100 MB': { header: '{}', claim: 100_000_001n, says: /more than 100000000/ },
  'a header of 2^64 - 1 bytes': { header: '{}', claim: 2n ** 64n - 1n, says: /more than/ },
  'a header that is no JSON': { header: '{"a": ', says: /not JSON/ },
  'a header that is a list': { header: '[]', says: /not a JSON object/ },
  'a header that is no UTF-8': { header: Buffer.from([0x7b, 0xff, 0x7d]), says: /not UTF-8/ },
  'a tensor that is no object': { header: '{"a": 3}', says: /: a: must be an object/ },
  'an unknown dtype': {
    header: '{"a": {"dtype": "F31", "shape": [1], "data_offsets": [0, 4]}}',
    bytes: 4,
    says: /: a: unknown dtype "F31"/,
  },
  'a dtype named like a method': {
    header: '{"a": {"dtype": "toString", "shape": [1], "data_offsets": [0, 4]}}',
    bytes: 4,
    says: /unknown dtype/,
  },
  'a negative extent': {
    header: '{"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}}',
    bytes: 4,
    says: /: a: the shape \[-1\]/,
  },
  'a fractional extent': {
    header: '{"a": {"dtype": "F32", "shape": [0.5], "data_offsets": [0, 4]}}',
    bytes: 4,
    says: /whole numbers/,
  },
  'a shape that is no list': {
    header: '{"a": {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]}}',
    bytes: 4,
    says: /whole numbers/,
  },
  'an extent beyond exact numbers': {
    header: '{"a": {"dtype": "F32", "shape": [1e300], "data_offsets": [0, 4]}}',
    bytes: 4,
    says: /whole numbers/,
  },
  'extents whose product overflows': {
    header: '{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 4]}}',
    bytes: 4,
    says: /takes/,
  },
  'one offset': {
    header: '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}',
    bytes: 4,
    says: /no two whole numbers/,
  },
  'offsets that run backwards': {
    header: '{"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}',
    bytes: 4,
    says: /span -4/,
  },
  'offsets of another size than the shape': {
    header: `{"a": ${f32(0, 8, [1])}}`,
    bytes: 8,
    says: /takes 4 bytes, data_offsets span 8/,
  },
  'offsets past the end': { header: `{"a": ${f32(0, 8)}}`, bytes: 4, says: /: a: .* lie beyond the file's/ },
  'tensors that overlap': { header: `{"a": ${f32(0, 8)}, "b": ${f32(4, 12)}}`, bytes: 12, says: /: b: .* overlap/ },
  'a gap between tensors': { header: `{"a": ${f32(0, 4)}, "b": ${f32(8, 12)}}`, bytes: 12, says: /: b: .* gap of 4/ },
  'bytes after the last tensor': { header: `{"a": ${f32(0, 4)}}`, bytes: 9, says: /5 bytes follow/ },
  'a key that stands twice': {
    header: `{"a": ${f32(0, 4)}, "a": ${f32(0, 4)}}`,
    bytes: 4,
    says: /holds the key "a" twice/,
  },
  'a key that stands twice in different spelling': {
    header: `{"a": ${f32(0, 4)}, "\\u0061": ${f32(0, 4)}}`,
    bytes: 4,
    says: /holds the key "a" twice/,
  },
  'a shape that stands twice': {
    header: '{"a": {"dtype": "F32", "shape": [2], "shape": [1], "data_offsets": [0, 4]}}',
    bytes: 4,
    says: /holds the key "shape" twice/,
  },
  'nesting without end': { header: '['.repeat(1e6), says: /nested more than 4 deep/ },
  'more keys than memory': {
    header: `{${Array.from({ length: 1_000_001 }, (_, i) => `"${i}":0`).join()}}`,
    says: /more than 1000000 keys/,
  },
  'a string that never ends': { header: `{"${'\\\\'.repeat(1e6)}`, says: /not JSON/ },
  'metadata that is no text': { header: '{"__metadata__": {"a": 1}}', says: /__metadata__ must hold strings/ },
};

for (const [what, { header = '{}', bytes = 0, claim, says }] of Object.entries(hostile)) {
  test(`refuses ${what}`, async ({ folder }) => {
    const path = craft(folder, header, bytes, claim);
    const { code, message } = await rejection(openSafetensors(path));
    assert.is(code, 'ERR_WEIGHTS');
    assert.match(message, says);
    assert.ok(message.includes(path), message);
  });
}

test('refuses an empty and a missing file', async ({ folder }) => {
  const empty = join(folder, 'empty.safetensors');
  writeFileSync(empty, '');
  assert.is((await rejection(openSafetensors(empty))).code, 'ERR_WEIGHTS');
  assert.is((await rejection(openSafetensors(join(folder, 'absent.safetensors')))).code, 'ERR_FILE');
  assert.is((await rejection(openSafetensors(folder))).code, 'ERR_FILE');
});

test('accepts a repeated key in different objects, braces in strings and empty tensors', async ({ folder }) => {
  const header = `{"a\\"{": ${f32(0, 4)}, "b": ${f32(4, 4, [0, 3])}, "__metadata__": {"a": "{\\"b\\": [", "b": "}"}}   `;
  const { entries, metadata } = await openSafetensors(craft(folder, header, 4));
  assert.equal([...entries.keys()], ['a"{', 'b']);
  assert.equal(entries.get('b')!.shape, [0, 3]);
  assert.equal(metadata, { a: '{"b": [', b: '}' });
});

const stored: Record<string, Source> = {
  single: { dtype: 'F32', shape: [2, 2], data: () => Float32Array.of(1, -2, 0.1, 3e38) },
  double: { dtype: 'F64', shape: [1], data: () => Float64Array.of(Math.PI) },
  whole: { dtype: 'I32', shape: [2], data: async () => Int32Array.of(-7, 2 ** 31 - 1) },
  bytes: { dtype: 'U8', shape: [3], data: () => Uint8Array.of(0, 128, 255) },
  none: { dtype: 'F32', shape: [0], data: () => new Float32Array(0) },
};

test('what is written reads back exactly, in order and with its metadata', async ({ folder }) => {
  const path = join(folder, 'round.safetensors');
  await writeSafetensors(path, new Map(Object.entries(stored)), { config: '{"a": [1]}', ключ: '値' });
  const file = await openSafetensors(path);
  assert.equal(file.metadata, { config: '{"a": [1]}', ключ: '値' });
  assert.equal([...file.entries.keys()], Object.keys(stored));
  for (const [key, { shape, data }] of Object.entries(stored)) {
    assert.equal(file.entries.get(key)!.shape, shape);
    assert.equal(await readTensor(file, key), await data());
  }
  const start = 8 + Number(readFileSync(path).readBigUInt64LE());
  assert.is(start % 8, 0);
});

test('halves round to nearest even and read back as what they hold', async ({ folder }) => {
  const path = join(folder, 'half.safetensors');
  const values = [
    1,
    -0,
    65504,
    65519.99,
    65520,
    2 ** -24,
    2 ** -25,
    3 * 2 ** -25,
    2 ** -14,
    1 + 2 ** -11,
    1 + 3 * 2 ** -11,
    Infinity,
    0.1,
  ];
  const data = () => Float32Array.from(values);
  await writeSafetensors(
    path,
    new Map<string, Source>([
      ['f16', { dtype: 'F16', shape: [values.length], data }],
      ['bf16', { dtype: 'BF16', shape: [3], data: () => Float32Array.of(1 + 2 ** -8, 1 + 3 * 2 ** -8, -3.4e38) }],
      ['i64', { dtype: 'I64', shape: [1], data: () => Int32Array.of(-5) }],
    ]),
  );
  const file = await openSafetensors(path);
  const tenth = 0.0999755859375;
  const expected = [1, -0, 65504, 65504, Infinity, 2 ** -24, 0, 2 ** -23, 2 ** -14, 1, 1 + 2 ** -9, Infinity, tenth];
  assert.equal(await readTensor(file, 'f16'), Float32Array.from(expected));
  assert.equal(await readTensor(file, 'bf16'), Float32Array.of(1, 1 + 2 ** -6, -Infinity));
  const { bytes, pieces } = file.entries.get('i64')!;
  const [{ offset }] = pieces;
  assert.is(
    readFileSync(path)
      .subarray(offset, offset + bytes)
      .readBigInt64LE(),
    -5n,
  );
  assert.match((await rejection(readTensor(file, 'i64'))).message, /i64: I64 values cannot be read/);
});

test('NaN stays NaN in halves', () => {
  for (const type of ['F16', 'BF16'] as const)
    assert.ok(Number.isNaN(toFloat32(fromFloat32(Float32Array.of(NaN), type), type)[0]));
});

test('every float16 survives a round through float32', () => {
  const all = Uint16Array.from({ length: 65536 }, (_, i) => i).filter(
    (h) => (h & 0x7c00) !== 0x7c00 || (h & 0x3ff) === 0,
  );
  assert.equal(fromFloat32(toFloat32(all, 'F16'), 'F16'), all);
  assert.equal(fromFloat32(toFloat32(all, 'BF16'), 'BF16'), all);
});

test('a failed write leaves the old file and no other', async ({ folder }) => {
  const path = join(folder, 'kept.safetensors');
  await writeSafetensors(path, new Map([['single', stored.single]]));
  const before = readFileSync(path);
  const bad: Record<string, [Source, RegExp]> = {
    short: [{ dtype: 'F32', shape: [3], data: () => new Float32Array(2) }, /short: 2 values do not fill \[3\]/],
    kind: [{ dtype: 'U8', shape: [1], data: () => new Float32Array(1) }, /kind: cannot write Float32Array as U8/],
    thrown: [{ dtype: 'F32', shape: [1], data: () => Promise.reject(new Error('gone')) }, /cannot write .*: gone/],
  };
  for (const [key, [source, says]] of Object.entries(bad)) {
    const tensors = new Map([
      ['single', stored.single],
      [key, source],
    ] as [string, Source][]);
    assert.match((await rejection(writeSafetensors(path, tensors))).message, says);
    assert.equal(readFileSync(path), before);
  }
  assert.equal(
    readdirSync(folder).filter((name) => name.includes('kept')),
    ['kept.safetensors'],
  );
  const nowhere = join(folder, 'absent', 'x.safetensors');
  assert.is((await rejection(writeSafetensors(nowhere, new Map()))).code, 'ERR_FILE');
});

test.run();
