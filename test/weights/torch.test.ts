// Checkpoints of PyTorch: the same table of tensors in every form, from files that lie here and, where python3-torch is
// installed, from fresh ones by test/weights/checkpoints.py.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { parameterLeaf, sizeOf } from '../../lib/graph/tensor.ts';
import { Module, Parameter } from '../../lib/nn/module.ts';
import { openDevice } from '../../lib/runtime/index.ts';
import type { FileType } from '../../lib/weights/format.ts';
import { loadWeights } from '../../lib/weights/load.ts';
import { openWeights } from '../../lib/weights/open.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { renamed } from '../../lib/weights/rename.ts';

const here = fileURLToPath(new URL('./checkpoints', import.meta.url));
const fresh = mkdtempSync(join(tmpdir(), 'refl-torch-'));
const script = fileURLToPath(new URL('./checkpoints.py', import.meta.url));
const python = spawnSync('/usr/bin/python3', [script, fresh], { encoding: 'utf8' });
test.after(() => rmSync(fresh, { recursive: true }));

const folders = python.status === 0 ? { committed: here, fresh } : { committed: here };

interface Expected {
  dtype: FileType;
  shape: number[];
  values?: number[];
}

/** Values k + i / 8, as the script makes them. */
const steps = (dtype: FileType, k: number, shape: number[]): Expected => ({
  dtype,
  shape,
  values: Array.from({ length: sizeOf(shape) }, (_, i) => k + i / 8),
});
const base = steps('F32', 5, [4, 6]).values!;
const at = (rows: number[], columns: number[]): number[] => rows.flatMap((r) => columns.map((c) => base[6 * r + c]));

const tensors: Record<string, Expected> = {
  f32: steps('F32', 0, [2, 3]),
  f64: steps('F64', 1, [3]),
  f16: steps('F16', 2, [2, 2]),
  bf16: steps('BF16', 3, [5]),
  i64: { dtype: 'I64', shape: [4] },
  i32: { dtype: 'I32', shape: [3], values: [0, 1, 2] },
  u8: { dtype: 'U8', shape: [7], values: [0, 1, 2, 3, 4, 5, 6] },
  bool: { dtype: 'BOOL', shape: [2] },
  scalar: { dtype: 'F32', shape: [], values: [4.5] },
  empty: { dtype: 'F32', shape: [0, 3], values: [] },
  base: steps('F32', 5, [4, 6]),
  transposed: {
    dtype: 'F32',
    shape: [6, 4],
    values: [0, 1, 2, 3, 4, 5].flatMap((column) => at([0, 1, 2, 3], [column])),
  },
  columns: { dtype: 'F32', shape: [2, 3], values: at([1, 2], [0, 2, 4]) },
  row: { dtype: 'F32', shape: [6], values: at([2], [0, 1, 2, 3, 4, 5]) },
  repeated: { dtype: 'F32', shape: [2, 3], values: [6, 6.125, 6.25, 6, 6.125, 6.25] },
  parameter: steps('F32', 7, [2]),
};

for (const [name, folder] of Object.entries(folders)) {
  for (const form of ['zip.pth', 'zip_protocol4.pth', 'stream.pth']) {
    test(`${name} ${form}: names, types, shapes and values`, async () => {
      const file = await openWeights(join(folder, form));
      assert.equal([...file.entries.keys()], Object.keys(tensors));
      for (const [key, { dtype, shape, values }] of Object.entries(tensors)) {
        const entry = file.entries.get(key)!;
        assert.equal([entry.dtype, entry.shape], [dtype, shape], key);
        if (values) assert.equal([...(await readTensor(file, key))], values, key);
      }
    });

    test(`${name} ${form}: views arrive in a device's parameters, frozen or not`, async () => {
      const floats = Object.entries(tensors).filter(([, { dtype }]) => /F/.test(dtype));
      const keys = new Map(floats.map(([key]) => [key, key]));
      const file = renamed(await openWeights(join(folder, form)), (key) => keys.get(key));
      using device = await openDevice('cpu');
      for (const frozen of [true, false]) {
        const module = new Listed(floats);
        using parameters = device.parameters();
        await loadWeights(parameters, module, file, { frozen });
        for (const [key, { values }] of floats) {
          assert.equal([...(await parameters.read(module.namedParameters().get(key)!.value))], values, key);
        }
      }
    });
  }

  test(`${name}: wrappers are looked through, and plain values become metadata`, async () => {
    const open = (form: string) => openWeights(join(folder, form));
    for (const form of ['lightning.ckpt', 'esrgan.pth', 'script.pt']) {
      const file = await open(form);
      assert.equal([...file.entries.keys()], ['weight', 'bias'], form);
      assert.equal([...(await readTensor(file, 'weight'))], [0, 0.125], form);
    }
    assert.is((await open('lightning.ckpt')).metadata.epoch, '3');
    const osediff = await open('osediff.pkl');
    assert.equal(
      [...osediff.entries].map(([key, { shape }]) => `${key} ${shape}`),
      ['state_dict_unet.conv_in.lora_A.default_encoder.weight 4,2,1,1', 'state_dict_vae.quant_conv.lora_A.weight 2'],
    );
    assert.equal(osediff.metadata, {
      unet_lora_encoder_modules: '["conv_in","down_blocks.0"]',
      rank_unet: '4',
    });
  });

  test(`${name}: what weights do not need is refused by its name`, async () => {
    try {
      await openWeights(join(folder, 'system.pth'));
    } catch (error) {
      assert.is((error as { code: string }).code, 'ERR_WEIGHTS');
      assert.match((error as Error).message, /system\.pth.*"posix\.system".*refused/);
      return;
    }
    assert.unreachable();
  });
}

test('numpy numbers beside the weights are left aside', async () => {
  const { entries, metadata } = await openWeights(join(here, 'numpy.pt'));
  assert.equal([...entries.keys()], ['weight', 'bias']);
  assert.equal(metadata, {});
});

/** A module whose parameters are the given tensors. */
class Listed extends Module {
  readonly [key: string]: unknown;

  constructor(list: readonly (readonly [string, Expected])[]) {
    super();
    for (const [key, { shape }] of list) Object.assign(this, { [key]: new Parameter(shape, 'zeros') });
  }
}

test('several views become one parameter, one after the other', async () => {
  const file = await openWeights(join(here, 'zip.pth'));
  const views = ['row', 'transposed', 'f16'].flatMap((key) => {
    const { dtype, pieces } = file.entries.get(key)!;
    return pieces.map((piece) => ({ ...piece, dtype }));
  });
  using device = await openDevice('cpu');
  using parameters = device.parameters();
  const leaf = parameterLeaf([34], 'f32');
  await parameters.gather(leaf, views, { frozen: true });
  const expected = ['row', 'transposed', 'f16'].flatMap((key) => tensors[key].values!);
  assert.equal([...(await parameters.read(leaf))], expected);
  const code = async (shape: number[], slices: typeof views): Promise<string> => {
    try {
      await parameters.gather(parameterLeaf(shape, 'f32'), slices);
    } catch (error) {
      return (error as { code: string }).code;
    }
    return 'none';
  };
  assert.is(await code([35], views), 'ERR_WEIGHTS');
  assert.is(await code([33], views), 'ERR_WEIGHTS');
  const [row] = views;
  assert.is(await code([6], [{ ...row, strides: [2 ** 40] }]), 'ERR_WEIGHTS');
  assert.is(await code([6], [{ ...row, strides: [-1] }]), 'ERR_WEIGHTS');
  assert.is(await code([6], [{ ...row, strides: [1, 1] }]), 'ERR_WEIGHTS');
  assert.is(await code([6], [{ ...row, offset: 10 ** 9 }]), 'ERR_WEIGHTS');
  assert.is(await code([6], [{ ...row, dtype: 'I64' }]), 'ERR_WEIGHTS');
});

test.run();
