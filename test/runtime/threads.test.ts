import { spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { openDevice } from '../../lib/runtime/index.ts';
import { child, ended, longFeeds, longRun, startWorker } from '../support/runtime.ts';

test('the main thread and workers run programs at once, each with its own copy of the addon', async () => {
  const workers = Array.from({ length: 2 }, () => {
    const worker = startWorker('3');
    const messages: unknown[] = [];
    worker.on('message', (message) => messages.push(message));
    return once(worker, 'exit').then(([code]) => ({ code, last: messages.at(-1) }));
  });
  const device = await openDevice('cpu', { threads: 2 });
  const program = await device.compile(longRun(30));
  assert.is((await program.run(longFeeds)).y[5], 30);
  assert.equal(await Promise.all(workers), [
    { code: 0, last: 20 },
    { code: 0, last: 20 },
  ]);
  assert.is((await program.run(longFeeds)).y[5], 30, "the workers' end leaves the others alone");
  device.dispose();
});

test('workers may be terminated in mid-run while the main thread runs programs too', async () => {
  ended(await child('terminate', 'beside'));
});

test('workers may be terminated in mid-run where only they load the addon', async () => {
  ended(await child('terminate', 'alone'));
});

test('a process with an open device ends by itself when it has nothing left to do', async () => {
  const result = await child('idle', 'idle');
  ended(result);
  assert.match(result.output, 'ready');
  assert.ok(result.lingered < 2, `lingered for ${result.lingered} s`);
});

test('a run that is under way keeps its process alive', async () => {
  const result = await child('idle', 'pending');
  ended(result);
  assert.match(result.output, 'ended with 100');
});

test('process.exit and an uncaught error in the middle of a run end the process in the ordinary way', async () => {
  const exited = await child('idle', 'exit');
  ended(exited);
  assert.not.match(exited.output, 'ended with');
  const threw = await child('idle', 'throw');
  assert.equal([threw.code, threw.signal], [1, null], threw.output);
  assert.match(threw.output, 'thrown on purpose');
});

test('idle OpenMP workers sleep, also where a worker thread is the first to load the addon, unless the user wants otherwise', async () => {
  process.env.OMP_DISPLAY_ENV = 'verbose'; // GNU's OpenMP runtime then prints what it made of its environment
  try {
    for (const wanted of [undefined, 'active']) {
      if (wanted) process.env.OMP_WAIT_POLICY = wanted;
      for (const result of [await child('policy'), await child('idle', 'idle')]) {
        ended(result);
        assert.match(result.output, wanted ? /GOMP_SPINCOUNT = '[1-9]\d{6,}'/ : "GOMP_SPINCOUNT = '0'");
      }
    }
  } finally {
    delete process.env.OMP_DISPLAY_ENV;
    delete process.env.OMP_WAIT_POLICY;
  }
});

// Root alone may become a user without processes of its own, whose limit is then known; and that one must see the files.
const nobody = { uid: 65534, gid: 65534, encoding: 'utf8', timeout: 60_000 } as const;
const limited = ['--nproc=60', process.execPath, '--import', 'tsx', 'test/runtime/children/limited.ts'];
const possible =
  process.getuid?.() === 0 && spawnSync('prlimit', ['--nproc=60', 'ls', 'ops.json'], nobody).status === 0;
if (!possible) console.log('skipped: the limit of threads cannot be set here');

(possible ? test : test.skip)(
  'a device of more threads than the system lets start is refused, and does no harm',
  () => {
    const { status, stdout, stderr } = spawnSync('prlimit', limited, nobody);
    assert.is(status, 0, stderr);
    assert.match(
      stdout,
      /^ERR_DEVICE the system starts only \d+ of 64 threads .*: ask for fewer threads\nended with 3\n$/,
    );
  },
);

test.run();
