// The CUDA library as the addon finds it at run time: none, whole ones of several kinds, and ones that are broken.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { cudaState, openDevice } from '../../lib/runtime/index.ts';
import { errorOf } from '../support/runtime.ts';

const folder = mkdtempSync(join(tmpdir(), 'refl-cuda-'));
test.after(() => {
  delete process.env.REFL_CUDA_LIB;
  rmSync(folder, { recursive: true });
});

function library(name: string, code: string): string {
  const path = join(folder, `${name}.so`);
  const flags = ['-shared', '-fPIC', '-Inative', '-x', 'c++', '-', '-o', path];
  const { status, stderr } = spawnSync('g++', flags, { input: code, encoding: 'utf8' });
  assert.is(status, 0, stderr);
  return path;
}

const entry = (body: string): string => `
  #include "exec/cuda_abi.h"
  extern "C" const ReflCuda* refl_cuda_get(int abi) { ${body} }`;
const table = (fields: string): string => entry(`static const ReflCuda table = {${fields}}; return &table;`);

/** What is said of the library at `path`, by {@link cudaState} and by a device that is asked for. */
async function saidOf(path: string): Promise<string> {
  process.env.REFL_CUDA_LIB = path;
  const { reason } = cudaState();
  for (const name of ['cuda', 'cuda:0']) {
    const error = await errorOf(() => openDevice(name));
    assert.is(error.code, 'ERR_DEVICE');
    assert.is(error.message, `the device ${name} is not usable: ${reason}; use cpu`);
  }
  return reason;
}

test('without a library it says where it looked and how to build one', async () => {
  const missing = join(folder, 'missing.so');
  assert.is(await saidOf(missing), `there is no CUDA library at ${missing}; REFL_CUDA_LIB names no file`);
});

test("a library's own reason is passed on, with what it was built with", async () => {
  const path = library('none', table('REFL_CUDA_ABI, 0, "no CUDA device: the driver lists none", "CUDA 99.1"'));
  assert.is(await saidOf(path), 'no CUDA device: the driver lists none');
  const reason = 'no CUDA device: the driver lists none';
  assert.equal(cudaState(), { library: path, build: 'CUDA 99.1', devices: 0, reason });
});

const broken: [string, string, string][] = [
  ['of another ABI', entry('return nullptr;'), 'another version of this package; build it again'],
  ['that ignores the ABI asked for', table('REFL_CUDA_ABI + 1, 0, "", ""'), 'another version of this package'],
  ['without texts', table('REFL_CUDA_ABI, 0, nullptr, nullptr'), 'another version of this package'],
  ['without the entry', 'int other() { return 1; }', 'no entry refl_cuda_get'],
  ['that lacks a symbol', `int lacking(); ${entry('lacking(); return nullptr;')}`, 'undefined symbol'],
];
for (const [i, [what, code, said]] of broken.entries()) {
  test(`a library ${what} is refused`, async () => {
    const path = library(`broken${i}`, code);
    const reason = await saidOf(path);
    assert.ok(reason.startsWith(`the CUDA library ${path} cannot be used: `), reason);
    assert.match(reason, said);
    assert.is(cudaState().build, undefined);
  });
}

test('a library that is cut short anywhere is refused and does no harm', async () => {
  const whole = readFileSync(library('whole', table('REFL_CUDA_ABI, 0, "none", "test"')));
  const path = join(folder, 'cut.so');
  for (let length = 0; length < whole.length; length += 97) {
    writeFileSync(path, whole.subarray(0, length));
    assert.match(await saidOf(path), length < 64 ? 'no shared library' : 'cut short');
  }
});

test('a file that is no library is refused', async () => {
  const path = join(folder, 'text.so');
  writeFileSync(path, 'This is a text of more than sixty-four bytes, which is as long as the header of a library.');
  assert.match(await saidOf(path), 'no shared library of this machine');
  assert.match(await saidOf(folder), 'no regular file');
  const foreign = readFileSync(library('foreign', table('REFL_CUDA_ABI, 0, "none", "test"')));
  foreign.writeUInt16LE(0xf3, 18); // a machine that is not ours
  writeFileSync(path, foreign);
  assert.match(await saidOf(path), 'cannot be used');
});

test.run();
