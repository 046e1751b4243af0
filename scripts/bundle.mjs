// Packs what a Linux x86-64 host with a GPU and its driver, but without Node.js, npm or a network, needs to test and time the
// kernels: build/bundle.tar.xz and, unpacked, build/bundle. There: bash run.sh test|bench|all OUTDIR.
import { execFileSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
process.chdir(root);
const bundle = 'build/bundle';
const most = 40e6; // bytes that fit through most doors

const run = (command, ...args) => execFileSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
function copy(from, to = from) {
  mkdirSync(dirname(join(bundle, to)), { recursive: true });
  cpSync(from, join(bundle, to), { recursive: true });
}

run('npm', 'run', '-s', 'build:addon');
// What nvcc would compress itself, xz compresses better, all that is alike in the programs too.
const cuda = 'build/cuda-bundle';
const options = ['-DCMAKE_BUILD_TYPE=Release', '-DREFL_BENCH=ON', '-DCMAKE_CUDA_FLAGS=--compress-mode=none'];
run('cmake', '-S', '.', '-B', cuda, ...options);
run('cmake', '--build', cuda, '--parallel', '2');
run(process.execPath, '--import', 'tsx', 'test/simt/device.ts');

rmSync(bundle, { recursive: true, force: true });
run('npx', 'tsc', '-p', 'tsconfig.json', '--noEmit', 'false', '--outDir', bundle, '--rootDir', '.');
for (const file of ['package.json', 'ops.json', 'bench/cuda/pytorch.py']) copy(file);
copy(process.execPath, 'node');
run('strip', `${bundle}/node`);
for (const file of ['refl.node', 'refl_environment.node']) copy(`build/Release/${file}`);
copy(`${cuda}/Release/librefl_cuda.so`, 'build-cuda/Release/librefl_cuda.so');
copy(`${cuda}/refl_cuda_bench`, 'build-cuda/operators');
for (const name of readdirSync('build/simt/device').filter((it) => /^\w+$/.test(it))) {
  copy(`build/simt/device/${name}`, `kernels/${name}`);
}
for (const name of needs(['uvu'])) copy(`node_modules/${name}`);
copy('scripts/bundle.sh', 'run.sh');
// Reference numbers of whole networks, where they are beside the project; single operators have their tests.
const golden = '../shared/golden';
if (existsSync(golden)) {
  const files = readdirSync(golden).filter((name) => /^(unet|vae|swinir)_tiny\.safetensors$/.test(name));
  for (const name of files) copy(join(golden, name), `golden/${name}`);
}
writeFileSync(join(bundle, 'revision'), execFileSync('git', ['rev-parse', 'HEAD']));

// The library, the bench and the kernels' programs follow each other, within the dictionary.
execFileSync('tar', ['-C', 'build', '--sort=name', '-cJf', `${bundle}.tar.xz`, 'bundle'], {
  env: { ...process.env, XZ_OPT: '--x86 --lzma2=preset=6,dict=256MiB' },
});
const { size } = statSync(`${bundle}.tar.xz`);
console.log(`${bundle}.tar.xz: ${(size / 1e6).toFixed(1)} MB`);
if (size > most) throw new Error(`the bundle has more than ${most / 1e6} MB`);

/** The packages and all that they need. */
function needs(names, found = new Set()) {
  for (const name of names.filter((it) => !found.has(it))) {
    found.add(name);
    const { dependencies = {} } = JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8'));
    needs(Object.keys(dependencies), found);
  }
  return found;
}
