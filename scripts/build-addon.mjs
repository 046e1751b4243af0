// Builds build/Release/refl.node by node-gyp, only what changed, without the network and without a word unless it fails.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { closeSync, existsSync, mkdirSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const lock = join(root, 'build', '.lock');
const stamp = join(root, 'build', '.configured');
const nodeGyp = createRequire(import.meta.url).resolve('node-gyp/bin/node-gyp.js');

/** The folder whose include/node holds the running node's headers; without one node-gyp downloads them. */
function headers() {
  const folders = [resolve(process.execPath, '../..'), process.env.npm_config_nodedir, '/usr'];
  return folders.find((folder) => folder && existsSync(join(folder, 'include/node/common.gypi')));
}

function run(command, args) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 2 ** 28,
  });
  if (status !== 0)
    throw new Error(`${stdout ?? ''}${stderr ?? ''}${error?.message ?? ''}\n${[command, ...args].join(' ')} failed`);
  return stdout + stderr;
}

const alive = (pid) => {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
};

// Two builds in one folder would write each other's objects: the later one waits for the earlier.
async function locked(fn) {
  mkdirSync(join(root, 'build'), { recursive: true });
  for (;;) {
    try {
      const file = openSync(lock, 'wx');
      writeFileSync(file, String(process.pid));
      closeSync(file);
      break;
    } catch (error) {
      if (error.code !== 'EEXIST') throw error;
      if (!alive(Number(readFileSync(lock, 'utf8')))) rmSync(lock, { force: true });
      else await sleep(200);
    }
  }
  try {
    fn();
  } finally {
    rmSync(lock, { force: true });
  }
}

await locked(() => {
  const started = Date.now();
  const nodedir = headers();
  const common = nodedir ? [`--nodedir=${nodedir}`] : [];
  const configuration = createHash('sha256').update(process.version + process.arch + nodedir + (process.env.CXX ?? ''));
  for (const file of ['binding.gyp', 'sources.json', 'node_modules/node-addon-api/package.json']) {
    configuration.update(readFileSync(join(root, file)));
  }
  const wanted = configuration.digest('hex');
  if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== wanted) {
    run(process.execPath, [nodeGyp, 'configure', ...common]);
    writeFileSync(stamp, wanted);
  }
  // Before make starts: as a target of its own, make would compare the table's age before it is written anew.
  run(process.execPath, ['scripts/op-table.mjs', 'build/generated']);
  const output = run(process.execPath, [nodeGyp, 'build', ...common, '-j', String(availableParallelism())]);
  for (const line of output.split('\n')) if (/: warning:/.test(line)) console.error(line);
  // A kernel that ops.json names and no file defines shows up here, as the loader's message, and not in the first test.
  run(process.execPath, ['-e', "require('./build/Release/refl.node')"]);
  if (/ CXX\(/.test(output))
    console.log(`built build/Release/refl.node in ${((Date.now() - started) / 1000).toFixed(1)} s`);
});
