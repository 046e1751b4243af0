// What openWeights recognises, and what it makes of files that mean harm.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openWeights } from '../../lib/weights/open.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { writeSafetensors } from '../../lib/weights/write.ts';
import { archive, call, dict, get, global, int, list, pickle, put, raw, tensor, text, tuple } from './pickles.ts';
import { zip } from './zip.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-open-'));
test.after(() => rmSync(folder, { recursive: true }));

function write(name: string, data: Uint8Array | string): string {
  const path = join(folder, name);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, data);
  return path;
}

/** A safetensors file of scalars: each key's value. */
async function safetensors(name: string, values: Readonly<Record<string, number>>): Promise<string> {
  const path = write(name, '');
  const tensors = Object.entries(values).map(
    ([key, value]) => [key, { dtype: 'F32', shape: [1], data: () => Float32Array.of(value) }] as const,
  );
  await writeSafetensors(path, new Map(tensors));
  return path;
}

async function valuesOf(path: string): Promise<Record<string, number>> {
  const file = await openWeights(path);
  const values: Record<string, number> = {};
  for (const key of file.entries.keys()) [values[key]] = await readTensor(file, key);
  return values;
}

async function failure(path: string): Promise<string> {
  try {
    await openWeights(path);
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    assert.ok(message.includes(path), message);
    return `${code} ${message.replaceAll(path, 'FILE')}`;
  }
  throw new Error('nothing was thrown');
}

const floats = (...values: number[]): Uint8Array => new Uint8Array(Float32Array.from(values).buffer);

test('content decides, not the name', async () => {
  assert.equal(await valuesOf(await safetensors('a.ckpt', { x: 1.5 })), { x: 1.5 });
  const torch = archive(dict(text('y'), tensor()), { 0: floats(2, 3) });
  assert.equal(await valuesOf(write('b.safetensors', torch)), { y: 2 });
  const stream = readFileSync(fileURLToPath(new URL('./checkpoints/stream.pth', import.meta.url)));
  assert.ok((await openWeights(write('c.bin', stream))).entries.has('bf16'));
  // Headers whose length looks like the start of a pickle, of JSON and of a page.
  for (const length of [0x280, 0x17b, 0x13c, 0x120]) {
    const header = '{"x":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'.padEnd(length);
    const size = Buffer.alloc(8);
    size.writeBigUInt64LE(BigInt(length));
    assert.equal(await valuesOf(write('d', Buffer.concat([size, Buffer.from(header), floats(7)]))), { x: 7 });
  }
});

test('a view without values may point beyond its storage: it lies within the file all the same', async () => {
  const view = tensor({ values: 0, offset: 2 ** 31 - 1, shape: [0, 2 ** 31 - 1], strides: [0, 0] });
  const path = write('nothing.pth', archive(dict(text('y'), view), { 0: new Uint8Array() }));
  const { entries } = await openWeights(path);
  const { bytes, pieces } = entries.get('y')!;
  assert.is(bytes, 0);
  assert.ok(pieces.every(({ offset }) => offset <= readFileSync(path).length));
  assert.is((await readTensor(await openWeights(path), 'y')).length, 0);
});

test('archives may be in 64 bits', async () => {
  const members = dict(text('y'), tensor(), text('z'), tensor({ key: '1', values: 1 }));
  const path = write('64.pth', archive(members, { 0: floats(2, 3), 1: floats(4) }, { zip64: true }));
  assert.equal(await valuesOf(path), { y: 2, z: 4 });
});

test('shards of an index are one file', async () => {
  await safetensors('s/model-1.safetensors', { a: 1, b: 2 });
  write('s/model-2.bin', archive(dict(text('c'), tensor()), { 0: floats(3, 0) }));
  const map = { a: 'model-1.safetensors', c: 'model-2.bin', b: 'model-1.safetensors' };
  const index = write('s/model.safetensors.index.json', JSON.stringify({ metadata: {}, weight_map: map }));
  assert.equal(await valuesOf(index), { a: 1, c: 3, b: 2 });
  assert.equal(await valuesOf(join(folder, 's')), { a: 1, c: 3, b: 2 });
  const bad = (weights: unknown): Promise<string> => failure(write('s/bad.json', JSON.stringify(weights)));
  assert.match(
    await bad({ weight_map: { x: 'model-1.safetensors' } }),
    /^ERR_WEIGHTS FILE: model-1.safetensors lacks x/,
  );
  assert.match(await bad({ weight_map: { x: '../s/model-1.safetensors' } }), /x: ".*" is no name of a file beside/);
  assert.match(await bad({ weight_map: { x: 'bad.json' } }), /is no name of a file beside/);
  assert.match(await bad({ weight_map: [] }), /holds a weight_map/);
  assert.match(await bad({}), /holds a weight_map/);
  assert.match(await failure(write('s/worse.json', '{"weight_map": {')), /the index is not JSON/);
  const gone = { a: 'model-1.safetensors', b: 'model-3.bin', c: 'model-4.bin', d: 'model-3.bin' };
  assert.is(
    await bad({ weight_map: gone }),
    'ERR_FILE FILE: 2 of the 3 files that it names are missing: model-3.bin, model-4.bin; put them beside it',
  );
  write('s/loop.bin', JSON.stringify({ weight_map: { x: 'loop.bin' } }));
  assert.match(await failure(join(folder, 's/loop.bin')), /^ERR_WEIGHTS FILE is an index where weights should be/);
});

test('a folder of diffusers is its parts', async () => {
  await safetensors('sd/unet/diffusion_pytorch_model.safetensors', { 'conv_in.bias': 1 });
  await safetensors('sd/vae/diffusion_pytorch_model.fp16.safetensors', { 'encoder.x': 2 });
  await safetensors('sd/text_encoder/model.safetensors', { y: 3 });
  await safetensors('sd/safety_checker/model.safetensors', { z: 4 });
  await safetensors('sd/controlnet/a.fp16.safetensors', { w: 5 });
  const map = JSON.stringify({ weight_map: { w: 'a.fp16.safetensors' } });
  write('sd/controlnet/diffusion_pytorch_model.safetensors.index.fp16.json', map);
  write('sd/model_index.json', '{}');
  assert.equal(await valuesOf(join(folder, 'sd')), {
    'controlnet.w': 5,
    'text_encoder.y': 3,
    'unet.conv_in.bias': 1,
    'vae.encoder.x': 2,
  });
  assert.equal(await valuesOf(join(folder, 'sd/unet')), { 'conv_in.bias': 1 });
  mkdirSync(join(folder, 'empty'));
  assert.match(await failure(join(folder, 'empty')), /^ERR_WEIGHTS FILE is a folder without weights/);
  assert.match(await failure(join(folder, 'nowhere')), /^ERR_FILE cannot read FILE/);
});

test('what is often found in the place of weights is named', async () => {
  const is = async (data: Uint8Array | string): Promise<string> => failure(write('other', data));
  assert.match(await is('version https://git-lfs.github.com/spec/v1\noid sha256:0\n'), /pointer of Git LFS/);
  assert.match(await is('<!DOCTYPE html><html></html>'), /page of HTML/);
  assert.match(await is(Buffer.concat([Buffer.alloc(257, 'x'), Buffer.from('ustar')])), /tar archive/);
  assert.match(await is('GGUF\x03\0\0\0\0\0\0\0'), /GGUF file/);
  assert.match(await is('some text that means nothing'), /in no form that is known/);
  assert.match(await is(''), /in no form that is known/);
  assert.match(await is(zip([])), /empty zip archive/);
  assert.match(await is(zip([{ name: 'a.txt', data: floats(1) }])), /holds one data\.pkl, this one 0/);
});

const good = dict(text('w'), tensor());
const sample = archive(good);
/** Ten lists, each of ten of the one before. */
const laughs = raw(
  ...Array.from({ length: 10 }, (_, i) => raw(list(...Array(10).fill(i ? get(i - 1) : int(1))), put(i), '0')),
  get(9),
);

const hostile: Record<string, { file: Uint8Array; says: RegExp }> = {
  'an archive cut short': { file: sample.subarray(0, -30), says: /no whole zip archive/ },
  'an archive whose directory lies elsewhere': {
    file: Buffer.concat([sample.subarray(0, 40), sample.subarray(60)]),
    says: /no whole zip archive/,
  },
  'a pickle with a wrong checksum': {
    file: archive(good, undefined, { edit: (m) => (m.name.endsWith('pkl') ? { ...m, crc: 1 } : m) }),
    says: /data\.pkl does not have the archive's checksum/,
  },
  'a compressed member': {
    file: archive(good, undefined, { edit: (m) => (m.name.endsWith('0') ? { ...m, method: 8 } : m) }),
    says: /a\/data\/0 is compressed/,
  },
  'a member twice': {
    file: archive(good, undefined, { edit: (m) => (m.name.endsWith('version') ? { ...m, name: 'a/data/0' } : m) }),
    says: /holds a\/data\/0 twice/,
  },
  'a name that leads out of the archive': {
    file: archive(good, undefined, { edit: (m) => (m.name.endsWith('version') ? { ...m, name: '../x' } : m) }),
    says: /no whole zip archive/,
  },
  'a storage that is missing': { file: archive(dict(text('w'), tensor({ key: '7' }))), says: /lacks a\/data\/7/ },
  'a big-endian archive': {
    file: zip([
      { name: 'a/data.pkl', data: pickle(good) },
      { name: 'a/byteorder', data: Buffer.from('big') },
    ]),
    says: /byte order is "big"/,
  },
  'a storage smaller than it says': {
    file: archive(dict(text('w'), tensor({ values: 3 }))),
    says: /: w: its storage 0 takes 12 bytes, the file has 8/,
  },
  'a view beyond its storage': {
    file: archive(dict(text('w'), tensor({ offset: 1 }))),
    says: /needs 3 values of the storage 0, which has 2/,
  },
  'strides beyond its storage': {
    file: archive(dict(text('w'), tensor({ strides: [2] }))),
    says: /with strides \[2\] needs 3 values/,
  },
  'an endless view': {
    file: archive(dict(text('w'), tensor({ shape: Array(8).fill(0x7fffffff), strides: Array(8).fill(0) }))),
    says: /too large a shape/,
  },
  'a view that overlaps itself': {
    file: archive(dict(text('w'), tensor({ values: 4, shape: [3, 2], strides: [1, 1] })), { 0: new Uint8Array(16) }),
    says: /values that overlap/,
  },
  'a negative shape': { file: archive(dict(text('w'), tensor({ shape: [-1] }))), says: /no proper shape/ },
  'a shape without strides': { file: archive(dict(text('w'), tensor({ strides: [] }))), says: /no proper shape/ },
  'an unknown type': {
    file: archive(dict(text('w'), tensor({ type: 'QInt8Storage' }))),
    says: /it asks for "torch\.QInt8Storage"/,
  },
  'a call of os.system': {
    file: archive(call(global('os', 'system'), text('true'))),
    says: /it asks for "os\.system", .* refused; nothing in it was run/,
  },
  'a call of os.system by the old operation': {
    file: archive(raw('(', text('true'), 'ios\nsystem\n')),
    says: /asks for "os\.system"/,
  },
  'a call of os.system by names on the stack': {
    file: archive(raw(text('os'), text('system'), 0x93)),
    says: /asks for "os\.system"/,
  },
  'a call of eval': { file: archive(call(global('builtins', 'eval'), text('1'))), says: /asks for "builtins\.eval"/ },
  'a call of getattr': { file: archive(global('builtins', 'getattr')), says: /asks for "builtins\.getattr"/ },
  'a name of JavaScript': { file: archive(global('constructor', 'constructor')), says: /constructor\.constructor/ },
  'a call of a value': { file: archive(call(text('f'), int(1))), says: /calls a value .* which is no function/ },
  'a call of a type': { file: archive(call(global('torch', 'FloatStorage'))), says: /calls torch\.FloatStorage/ },
  'an extension': { file: archive(raw(0x82, 1)), says: /no operation of a pickle/ },
  'persistent data of another kind': { file: archive(raw(text('x'), 'Q')), says: /refers to data that is no tensor's/ },
  'no tensors': { file: archive(dict(text('a'), int(1))), says: /it holds no tensors/ },
  'a tensor without a storage': {
    file: archive(call(global('torch._utils', '_rebuild_tensor_v2'), int(1), int(0), tuple(), tuple())),
    says: /a tensor has no storage/,
  },
  'a list that holds itself': {
    file: archive(raw(']', put(0), get(0), 'a', dict(text('w'), get(0)))),
    says: /w\.0 holds itself/,
  },
  'a dictionary that holds itself': {
    file: archive(raw('}', put(0), text('w'), get(0), 's')),
    says: /w holds itself/,
  },
  'a state dict that is its own': {
    file: archive(raw('}', put(0), text('state_dict'), get(0), 's')),
    says: /state_dict holds itself/,
  },
  'two state dicts that are each other': {
    file: archive(raw('}', put(0), text('params'), '}', put(1), text('state_dict'), get(0), 'ss')),
    says: /holds itself/,
  },
  'lists of lists of lists': { file: archive(laughs), says: /more than 1000000 values/ },
  'nesting without end': {
    file: archive(raw(Buffer.alloc(100_000, ']'), Buffer.alloc(99_999, 'a'))),
    says: /nested more than 32 deep/,
  },
  'a pickle that ends early': {
    file: zip([{ name: 'a/data.pkl', data: pickle(good).subarray(0, -9) }]),
    says: /the pickle is damaged: it ends too early/,
  },
  'a string longer than the pickle': { file: archive(raw('X', 0xff, 0xff, 0xff, 0x7f, 'a')), says: /ends too early/ },
  'a string that is no UTF-8': { file: archive(raw('X', 1, 0, 0, 0, 0xff)), says: /is not UTF-8/ },
  'an integer of 255 bytes': { file: archive(raw(0x8a, 255, Buffer.alloc(255))), says: /has 255 bytes/ },
  'a value that was never stored': { file: archive(get(9)), says: /value 9, which it never stored/ },
  'an empty stack': { file: archive(raw('00')), says: /lacks a value/ },
  'a stack that a mark ends': { file: archive(raw(int(1), '(a')), says: /lacks a value/ },
  'a list that is no list': { file: archive(raw(int(1), int(2), 'a')), says: /adds to what is no list/ },
  'a dictionary of half a pair': { file: archive(raw('}(', int(1), 'u')), says: /sets items of what is no dictionary/ },
  'three million objects': { file: archive(raw(Buffer.alloc(3_000_000, ']'))), says: /more than 2000000 objects/ },
  'five million values': { file: archive(raw(Buffer.alloc(5_000_000, 'N'))), says: /more than/ },
  'five million marks': { file: archive(raw(Buffer.alloc(5_000_000, '('))), says: /more than/ },
  'a long list copied again and again': {
    file: archive(
      raw(
        list(Buffer.concat(Array(200_000).fill(tuple(int(1), int(2))))),
        put(0),
        Buffer.concat(Array(2000).fill(raw(call(global('collections', 'OrderedDict'), get(0)), '0'))),
      ),
    ),
    says: /more than 2000000 objects/,
  },
  'a pickle of 17 MB': {
    file: archive(raw(Buffer.alloc(17_000_000, '0'))),
    says: /data\.pkl has 1700\d+ bytes, more than/,
  },
  'a stream that never ends': {
    file: Buffer.concat([pickle(good).subarray(0, 2), Buffer.alloc(17_000_000, 'N0')]),
    says: /its pickles have more than 16777216 bytes/,
  },
  'no pickle of torch.save': { file: pickle(good), says: /is a pickle, but none of torch\.save/ },
};

for (const [name, { file, says }] of Object.entries(hostile)) {
  test(`${name} is refused`, async () => {
    const message = await failure(write('hostile.pth', file));
    assert.match(message, says);
    assert.ok(message.startsWith('ERR_WEIGHTS FILE') && message.length < 600, message);
  });
}

test('a million tensors are refused before they exhaust anything', async () => {
  const one = raw(tensor(), put(0), '0');
  const many = Array.from({ length: 1_000_000 }, (_, i) => raw('U', 7, String(i).padStart(7), get(0)));
  const path = write('many.pth', archive(raw(one, '}(', Buffer.concat(many), 'u')));
  const before = process.memoryUsage().rss;
  assert.match(await failure(path), /more than 1000000 values/);
  assert.ok(process.memoryUsage().rss - before < 2e9);
});

test('wrong checksums of values are found when they are verified', async () => {
  const path = write('crc.pth', sample);
  await (await openWeights(path)).verify!();
  const damaged = archive(good, undefined, { edit: (m) => (m.name.endsWith('0') ? { ...m, crc: 1 } : m) });
  const file = await openWeights(write('crc.pth', damaged));
  try {
    await file.verify!();
  } catch (error) {
    assert.match((error as Error).message, /data\/0 does not have the archive's checksum/);
    return;
  }
  assert.unreachable();
});

test('the stream format: damage in each of its parts', async () => {
  const stream = readFileSync(fileURLToPath(new URL('./checkpoints/stream.pth', import.meta.url)));
  const change = (find: string | Buffer, by: string | Buffer): Buffer => {
    const at = stream.indexOf(find);
    assert.ok(at > 0);
    return Buffer.concat([stream.subarray(0, at), Buffer.from(by), stream.subarray(at + find.length)]);
  };
  const is = (data: Buffer): Promise<string> => failure(write('stream.pth', data));
  assert.match(await is(stream.subarray(0, -1)), /values of the storage \d+ are cut short/);
  assert.match(await is(stream.subarray(0, 500)), /ends too early/);
  assert.match(await is(change('\x19', '\x18')), /none of torch\.save/);
  assert.match(await is(change(Buffer.from([0x4d, 0xe9, 3]), Buffer.from([0x4d, 0xe9, 4]))), /version 1257 is unknown/);
  const endian = Buffer.concat([text('little_endian').subarray(1)]);
  const at = stream.indexOf(endian) + endian.length;
  const big = Buffer.from(stream);
  big[at + (big[at] === 0x71 ? 2 : 0)] = 0x89;
  assert.match(await is(big), /little-endian/);
});

test.run();
