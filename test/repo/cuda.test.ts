// timeout: 900 s
// The CUDA library builds from CMakeLists.txt with and without a CUDA toolkit, and its entry says why no device is usable.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';

const folder = mkdtempSync(join(tmpdir(), 'refl-cuda-'));
test.after(() => rmSync(folder, { recursive: true }));

function run(command: string, ...args: string[]): string {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8' });
  assert.is(status, 0, `${command} ${args.join(' ')}\n${stdout}${stderr}${error ?? ''}`);
  return stdout;
}

const known = Number(/define REFL_CUDA_ABI (\d+)/.exec(readFileSync('native/exec/cuda_abi.h', 'utf8'))![1]);

// Node opens addons only, so Python (which node-gyp needs anyway) calls the C entry.
const call = `
import ctypes, json, sys
class Table(ctypes.Structure):
    _fields_ = [('abi', ctypes.c_int), ('devices', ctypes.c_int), ('reason', ctypes.c_char_p), ('build', ctypes.c_char_p)]
get = ctypes.CDLL(sys.argv[1]).refl_cuda_get
get.restype = ctypes.POINTER(Table)
known = int(sys.argv[2])
table = get(known).contents
print(json.dumps([table.abi, table.devices, table.reason.decode(), table.build.decode(), bool(get(known + 1))]))
`;

function build(name: string, ...options: string[]) {
  const to = join(folder, name);
  run('cmake', '-S', '.', '-B', to, '-DCMAKE_BUILD_TYPE=Release', ...options);
  run('cmake', '--build', to, '--parallel', '2');
  const [abi, devices, reason, toolkit, other] = JSON.parse(
    run('python3', '-c', call, join(to, 'Release/librefl_cuda.so'), String(known)),
  );
  return { abi, devices, reason, toolkit, other };
}

const cmake = spawnSync('cmake', ['--version']).status === 0;
if (!cmake) console.log('skipped: cmake is not installed');
const check = cmake ? test : test.skip;

check('without a toolkit', () => {
  const { abi, devices, reason, other } = build('without', '-DREFL_NVCC=OFF');
  assert.equal([abi, devices, other], [known, 0, false]);
  assert.match(reason, /built without nvcc/);
});

// PTX, which costs least: test/simt/nvcc.test.ts compiles the kernels for the chips. The host's code is compiled here alone.
check('with what this machine has', () => {
  const { abi, devices, reason, toolkit, other } = build(
    'with',
    '-DCMAKE_CUDA_ARCHITECTURES=80-virtual',
    '-DCMAKE_CUDA_FLAGS=--Werror all-warnings',
  );
  assert.equal([abi, other], [known, false]);
  if (devices) assert.is(reason, '');
  else assert.match(reason, toolkit.startsWith('CUDA') ? /no CUDA device/ : /built without nvcc/);
});

test.run();
