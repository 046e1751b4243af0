// timeout: 300 s
// Files of weights that were damaged at random, and pickles put together at random: each opens, or is refused by an
// error with a code, soon and in bounded memory. REFL_FUZZ sets the number of cases (some thousands by default); so many
// take longer than a test may: node --import tsx test/weights/fuzz.test.ts.
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ReflError } from '../../lib/errors.ts';
import { sizeOf } from '../../lib/graph/tensor.ts';
import { findParts } from '../../lib/models/parts.ts';
import { fileTypes, type Piece, type WeightsFile } from '../../lib/weights/format.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { writeSafetensors } from '../../lib/weights/write.ts';
import { call, dict, get, global, int, list, pickle, put, raw, tensor, text, tuple, type View } from './pickles.ts';
import { type Member, zip } from './zip.ts';

const numRuns = Math.ceil(Number(process.env.REFL_FUZZ ?? 3000) / 3);
const folder = mkdtempSync(join(tmpdir(), 'refl-fuzz-'));
test.after(() => rmSync(folder, { recursive: true }));

/** Milliseconds that no case of some kilobytes may take, on a busy machine. */
const longest = 5000;

const checkpoints = fileURLToPath(new URL('./checkpoints', import.meta.url));
const files = Object.fromEntries(readdirSync(checkpoints).map((name) => [name, readFileSync(join(checkpoints, name))]));

test.before(async () => {
  const path = join(folder, 'good.safetensors');
  const tensors = ['a', 'b.c', 'd'].map(
    (key, i) => [key, { dtype: 'F32', shape: [i, 2], data: () => new Float32Array(2 * i) }] as const,
  );
  await writeSafetensors(path, new Map(tensors), { format: 'pt' });
  files['good.safetensors'] = readFileSync(path);
  files['model.safetensors.index.json'] = Buffer.from(
    '{"weight_map": {"a": "good.safetensors", "d": "good.safetensors"}}',
  );
});

/** One change of bytes; places are taken modulo the length. */
type Edit = (bytes: Buffer) => Buffer;

const place = fc.nat(2 ** 20);
const patch: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 8 }),
  fc
    .constantFrom('ff', 'ffffffff', '00000000', 'ffffffffffffff7f', '0000008000000000', '28', '2e', '75', '52', '51')
    .map((hex) => Uint8Array.from(Buffer.from(hex, 'hex'))),
);
const edit: fc.Arbitrary<Edit> = fc.oneof(
  fc.tuple(place, patch).map(
    ([at, by]): Edit =>
      (bytes) => {
        const from = at % (bytes.length + 1);
        return Buffer.concat([bytes.subarray(0, from), by, bytes.subarray(from + by.length)]);
      },
  ),
  fc.tuple(place, patch).map(
    ([at, by]): Edit =>
      (bytes) => {
        const from = at % (bytes.length + 1);
        return Buffer.concat([bytes.subarray(0, from), by, bytes.subarray(from)]);
      },
  ),
  fc.tuple(place, fc.nat(40)).map(
    ([at, count]): Edit =>
      (bytes) => {
        const from = at % (bytes.length + 1);
        return Buffer.concat([bytes.subarray(0, from), bytes.subarray(from + count)]);
      },
  ),
  fc.tuple(place, place, fc.nat(200)).map(
    ([at, to, count]): Edit =>
      (bytes) => {
        const [from, into] = [at % (bytes.length + 1), to % (bytes.length + 1)];
        return Buffer.concat([bytes.subarray(0, into), bytes.subarray(from, from + count), bytes.subarray(into)]);
      },
  ),
  place.map(
    (at): Edit =>
      (bytes) =>
        bytes.subarray(0, at % (bytes.length + 1)),
  ),
);
const byte: fc.Arbitrary<Edit> = fc.tuple(place, fc.nat(255)).map(
  ([at, by]): Edit =>
    (bytes) => {
      const changed = Buffer.from(bytes);
      if (changed.length) changed[at % changed.length] = by;
      return changed;
    },
);
const edits = fc.oneof(
  fc.array(byte, { minLength: 1, maxLength: 3 }),
  fc.array(fc.oneof(byte, edit), { minLength: 1, maxLength: 6 }),
);

const edited = (bytes: Buffer, changes: readonly Edit[]): Buffer => changes.reduce((b, change) => change(b), bytes);

let slowest = 0;
let opened = 0;
let refused = 0;

/** Opens bytes as a file and looks at what came of it. */
async function tryOpen(name: string, bytes: Uint8Array): Promise<void> {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  const start = performance.now();
  try {
    const file = await openWeights(path);
    check(file);
    opened++;
    findParts(file);
    for (const [key, entry] of file.entries) {
      if (entry.bytes < 1 << 20) await readTensor(file, key);
    }
  } catch (error) {
    if (!(error instanceof ReflError)) throw new Error(`no error with a code: ${(error as Error).stack}`);
    assert.ok(['ERR_WEIGHTS', 'ERR_FILE'].includes(error.code), error.code);
    assert.ok(error.message.length < 4000, `a message of ${error.message.length} characters`);
    refused++;
  }
  const took = performance.now() - start;
  slowest = Math.max(slowest, took);
  assert.ok(took < longest, `it took ${took} ms`);
}

/** Whatever an opened file says of its tensors is true of the bytes on disk. */
function check(file: WeightsFile): void {
  for (const [key, { dtype, shape, bytes, pieces }] of file.entries) {
    assert.is(bytes, sizeOf(shape) * fileTypes[dtype], key);
    assert.is(
      pieces.reduce((sum, piece) => sum + sizeOf(piece.shape), 0),
      sizeOf(shape),
      key,
    );
    for (const piece of pieces) {
      const end = piece.offset + spanOf(piece) * fileTypes[dtype];
      assert.ok(piece.offset >= 0 && end <= statSync(piece.path).size, `${key} ends at ${end}`);
    }
  }
}

function spanOf({ shape, strides }: Piece): number {
  if (!strides || shape.includes(0)) return sizeOf(shape);
  return shape.reduce((sum, extent, i) => sum + (extent - 1) * strides[i], 1);
}

const options = { numRuns, seed: Number(process.env.REFL_FUZZ_SEED ?? 1), includeErrorInReport: true };

test('real files with random damage', async () => {
  const names = Object.keys(files);
  await fc.assert(
    fc.asyncProperty(fc.nat(names.length - 1), edits, async (i, changes) => {
      await tryOpen('damaged', edited(files[names[i]], changes));
    }),
    options,
  );
});

/** A real archive's pickle and storages, found by what precedes them. */
function membersOf(name: string): Member[] {
  const bytes = files[name];
  const members: Member[] = [];
  for (let at = bytes.indexOf('PK\x01\x02'); at >= 0; at = bytes.indexOf('PK\x01\x02', at + 4)) {
    const nameLength = bytes.readUInt16LE(at + 28);
    const local = bytes.readUInt32LE(at + 42);
    const data = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28);
    const path = bytes.toString('latin1', at + 46, at + 46 + nameLength);
    members.push({ name: path, data: bytes.subarray(data, data + bytes.readUInt32LE(at + 24)) });
  }
  return members;
}

test('real archives whose pickles have random damage and right checksums', async () => {
  const archives = Object.keys(files)
    .filter((name) => files[name].subarray(0, 2).toString() === 'PK')
    .map(membersOf);
  assert.ok(archives.length > 4 && archives.every((members) => members.some(({ name }) => name.endsWith('/data.pkl'))));
  await fc.assert(
    fc.asyncProperty(fc.nat(archives.length - 1), edits, fc.boolean(), async (i, changes, zip64) => {
      const damaged = archives[i].map((member) =>
        member.name.endsWith('/data.pkl') ? { ...member, data: edited(Buffer.from(member.data), changes) } : member,
      );
      await tryOpen('damaged.pth', zip(damaged, { zip64 }));
    }),
    options,
  );
});

const names = fc.constantFrom(
  'os.system',
  'builtins.eval',
  'builtins.dict',
  'builtins.list',
  'collections.OrderedDict',
  'torch.Size',
  'torch._utils._rebuild_parameter',
  'torch._utils._rebuild_tensor_v2',
  'torch._utils._rebuild_tensor_v3',
  'torch._tensor._rebuild_from_type_v2',
  'torch.float16',
  'torch.HalfStorage',
  '__torch__.M',
  'numpy.core.multiarray.scalar',
  'numpy.dtype',
);
const word = fc.constantFrom(
  'w',
  'state_dict',
  'params_ema',
  'module.w',
  'storage',
  '0',
  '__proto__',
  'constructor',
  '',
);
const small = fc.oneof(fc.integer({ min: -2, max: 9 }), fc.constantFrom(2 ** 31 - 1, -(2 ** 31), 1000));

/** Values and operations that a pickle may consist of, meaningful ones more often than not. */
const { value } = fc.letrec<{ value: Buffer }>((tie) => ({
  value: fc.oneof(
    { maxDepth: 6, depthSize: 'small' },
    small.map(int),
    word.map(text),
    names.map((name) => global(name.slice(0, name.lastIndexOf('.')), name.slice(name.lastIndexOf('.') + 1))),
    fc
      .record({
        key: fc.constantFrom('0', '1', '2', 'x'),
        type: fc.constantFrom('FloatStorage', 'HalfStorage', 'LongStorage', 'BoolStorage', 'ComplexFloatStorage'),
        values: small,
        offset: small,
        shape: fc.array(small, { maxLength: 3 }),
        strides: fc.array(small, { maxLength: 3 }),
      })
      .map(tensor),
    fc.constantFrom<View>({}, { key: '2', values: 4, shape: [2, 2], strides: [1, 2] }).map(tensor),
    fc.nat(9).map(get),
    fc.tuple(tie('value'), fc.nat(9)).map(([inner, i]) => raw(inner, put(i))),
    fc.array(tie('value'), { maxLength: 4 }).map((items) => list(...items)),
    fc.array(tie('value'), { maxLength: 4 }).map((items) => tuple(...items)),
    fc.array(fc.tuple(word.map(text), tie('value')), { maxLength: 4 }).map((pairs) => dict(...pairs.flat())),
    fc.tuple(tie('value'), fc.array(tie('value'), { maxLength: 3 })).map(([callee, args]) => call(callee, ...args)),
    fc.tuple(tie('value'), tie('value')).map(([object, state]) => raw(object, state, 'b')),
    fc.tuple(tie('value'), tie('value'), tie('value')).map((items) => raw(...items, 's')),
    fc.tuple(tie('value'), tie('value')).map((items) => raw(...items, 'a')),
    tie('value').map((id) => raw(id, 'Q')),
    fc.uint8Array({ maxLength: 6 }).map((bytes) => raw(bytes)),
  ),
}));

/** Mostly state dicts: what else there is at the top is refused at once. */
const top = fc.oneof(
  { weight: 1, arbitrary: value },
  {
    weight: 4,
    arbitrary: fc
      .array(fc.tuple(word.map(text), fc.oneof(value, fc.constant(tensor()))), { minLength: 1, maxLength: 5 })
      .map((pairs) => dict(...pairs.flat())),
  },
);

test('pickles of random operations', async () => {
  const storages = [0, 1, 2].map((i) => ({ name: `a/data/${i}`, data: new Uint8Array(8 * (i + 1)) }));
  await fc.assert(
    fc.asyncProperty(top, async (root) => {
      await tryOpen('random.pth', zip([{ name: 'a/data.pkl', data: pickle(root) }, ...storages]));
    }),
    options,
  );
});

test('some were opened and some refused, none for long and none for much memory', () => {
  if (process.env.REFL_FUZZ) {
    const rss = (process.memoryUsage().rss / 2 ** 20).toFixed(0);
    console.log(`${opened} opened, ${refused} refused, ${slowest.toFixed(0)} ms the slowest, ${rss} MiB at the end`);
  }
  assert.ok(opened > numRuns / 50 && refused > numRuns / 50, `${opened} opened, ${refused} refused`);
  assert.ok(process.memoryUsage().rss < 1.5 * 2 ** 30);
});

test.run();
