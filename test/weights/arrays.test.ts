// Fixtures by NumPy and SciPy: arrays.py.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { readArrays } from '../../lib/weights/arrays.ts';
import { writeSafetensors } from '../../lib/weights/write.ts';
import { rejects } from '../metrics/support.ts';
import { temporaryFolder } from '../restore/support.ts';
import { random } from '../support/random.ts';

const fixture = (name: string): string => fileURLToPath(new URL(name, import.meta.url));
const folder = temporaryFolder();
const rows = [0, 0.25, 0.5, 0.75, 1, 1.25];

async function plain(path: string): Promise<Record<string, [shape: number[], values: number[]]>> {
  const arrays = await readArrays(path);
  return Object.fromEntries([...arrays].map(([name, { shape, values }]) => [name, [[...shape], [...values]]]));
}

test("NumPy's archives: rows and columns, several types; texts are left out", async () => {
  assert.equal(await plain(fixture('arrays.npz')), {
    rows: [[2, 3], rows],
    columns: [[2, 3], rows],
    single: [[2], [1.5, -2]],
    whole: [[2], [3, 4]],
    scalar: [[], [7]],
  });
});

test("MATLAB's files, compressed and plain; texts are left out", async () => {
  assert.equal(await plain(fixture('arrays.mat')), {
    rows: [[2, 3], rows],
    whole: [
      [1, 2],
      [3, 4],
    ],
    bytes: [
      [1, 3],
      [1, 2, 255],
    ],
  });
  assert.equal(await plain(fixture('plain.mat')), { rows: [[2, 3], rows], x: [[1, 1], [0.5]] });
});

test('any other weights', async () => {
  const path = join(folder, 'arrays.safetensors');
  await writeSafetensors(path, new Map([['x', { dtype: 'F64', shape: [2], data: () => Float64Array.of(0.1, 2) }]]));
  assert.equal(await plain(path), { x: [[2], [0.1, 2]] });
});

test('damaged files are refused, wherever they end', async () => {
  for (const name of ['arrays.npz', 'arrays.mat', 'plain.mat']) {
    const whole = await readFile(fixture(name));
    for (const part of [0.45, 0.7, 0.95]) {
      const path = join(folder, name);
      await writeFile(path, whole.subarray(0, Math.floor(whole.length * part)));
      await rejects(readArrays(path), 'ERR_WEIGHTS', /fetch or save it again|no whole/);
    }
  }
  await rejects(readArrays(join(folder, 'nowhere.npz')), 'ERR_FILE', /nowhere\.npz/);
});

test('whatever bytes are changed, a file is read or refused', async () => {
  const { int } = random(11);
  let refused = 0;
  for (const name of ['arrays.npz', 'arrays.mat', 'plain.mat']) {
    const whole = await readFile(fixture(name));
    for (let i = 0; i < 150; i++) {
      const changed = Uint8Array.from(whole);
      const places = Array.from({ length: int(1, 4) }, () => int(4, whole.length - 1));
      for (const at of places) changed[at] = int(0, 255);
      const path = join(folder, name);
      await writeFile(path, changed);
      await readArrays(path).catch((error) => {
        refused++;
        assert.is(error.code, 'ERR_WEIGHTS', `${name}, bytes ${places}: ${error.stack}`);
      });
    }
  }
  assert.ok(refused > 100, `only ${refused} were refused`);
});

test.run();
