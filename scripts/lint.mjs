// Checks formatting and lint: biome for TypeScript, clang-format for C++ and CUDA. With --write it mends what it can; naming
// a tool runs that one alone. Exit code 1: something to mend; 3: the tool is not installed.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const write = process.argv.includes('--write');
const named = process.argv.slice(2).filter((arg) => arg !== '--write');

const run = (command, args) => spawnSync(command, args, { cwd: root, stdio: 'inherit' }).status ?? 1;

function biome() {
  const folders = ['lib', 'test', 'bench', 'scripts'].filter((name) => existsSync(join(root, name)));
  return run(process.execPath, [
    'node_modules/@biomejs/biome/bin/biome',
    'check',
    ...(write ? ['--write'] : []),
    ...folders,
  ]);
}

function clangFormat() {
  // Versions format differently, so one is named; Debian 12 and Ubuntu 22.04 to 24.04 have it.
  const command = ['clang-format-14', 'clang-format'].find((name) =>
    / version 14\./.test(spawnSync(name, ['--version'], { encoding: 'utf8' }).stdout ?? ''),
  );
  if (!command) {
    console.log('skipped: clang-format 14 is not installed (apt-get install clang-format-14)');
    return 3;
  }
  const files = ['native', 'cuda', 'bench', 'test'].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => /\.(cc|h|cu|cuh)$/.test(name))
      .map((name) => join(folder, name)),
  );
  return run(command, [...(write ? ['-i'] : ['--dry-run', '-Werror']), ...files]);
}

const tools = { biome, 'clang-format': clangFormat };
const unknown = named.find((name) => !tools[name]);
if (unknown) throw new Error(`unknown tool ${unknown}: expected ${Object.keys(tools).join(' or ')}`);
const codes = (named.length ? named : Object.keys(tools)).map((name) => tools[name]());
process.exitCode = codes.includes(1) ? 1 : Math.max(...codes);
