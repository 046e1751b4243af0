import { spawn } from 'node:child_process';
import { appendFileSync, existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from 'uvu';
import * as assert from 'uvu/assert';
import { readChoices } from '../../lib/data/comparisons.ts';
import type { State } from '../../lib/server/annotate.ts';
import { temporaryFolder } from '../restore/support.ts';
import { comparisonsIn, writePairs } from '../server/pairs.ts';
import { command, errorLines, type Outcome, refl } from './support.ts';

const test = suite('cli data annotate');
const folder = temporaryFolder();
const pairs = await writePairs(folder, 12);
const comparisons = await comparisonsIn(pairs);

interface Running {
  readonly url: string;
  judge(annotator: string, side: string): Promise<Response>;
  state(annotator: string): Promise<State>;
  end(signal: NodeJS.Signals): Promise<Outcome>;
}

/** Starts the server, in a shell after the command `first`, and waits for its address. */
async function start(out: string, args: string[] = [], first = ':'): Promise<Running> {
  const annotate = [process.execPath, ...command, 'data', 'annotate', pairs, '-o', out, '--port', '0', ...args];
  const shell = ['-c', `${first}; exec "$@"`, 'bash', ...annotate];
  const child = spawn('bash', shell, { stdio: ['ignore', 'pipe', 'pipe'] });
  const outcome: Outcome = { code: null, stdout: '', stderr: '' };
  child.stderr.on('data', (data) => {
    outcome.stderr += data;
  });
  const closed = new Promise<Outcome>((done) => child.on('close', (code) => done({ ...outcome, code })));
  const url = await new Promise<string>((done, fail) => {
    child.stdout.once('data', (data) => done(String(data).trim()));
    child.once('exit', () => fail(new Error(outcome.stderr)));
  });
  const state = async (annotator: string): Promise<State> =>
    (await fetch(new URL(`/api/state?annotator=${annotator}`, url))).json() as Promise<State>;
  return {
    url,
    state,
    judge: async (annotator, side) => {
      const { now } = await state(annotator);
      const body = JSON.stringify({ annotator, pair: now!.pair, side });
      const headers = { 'content-type': 'application/json' };
      return fetch(new URL('/api/choice', url), { method: 'POST', body, headers });
    },
    end: (signal) => {
      child.kill(signal);
      return closed;
    },
  };
}

const countIn = (path: string): number => readFileSync(path, 'utf8').split('\n').length - 1;

test('a choice that was answered survives kill -9, and the next run goes on behind it', async () => {
  const out = join(folder, 'sub', 'killed.jsonl');
  for (const [i, side] of ['left', 'right', 'tie'].entries()) {
    const running = await start(out);
    assert.match(running.url, /^http:\/\/127\.0\.0\.1:\d+\/$/);
    assert.is((await running.state('ann')).done, i);
    assert.is((await running.judge('ann', side)).status, 200);
    await running.end('SIGKILL');
    assert.is(countIn(out), i + 1);
    // What a crash in the middle of the next line leaves.
    appendFileSync(out, '{"pair": "secret-mod');
  }
  assert.ok(existsSync(`${out}.lock`), 'nobody was there to remove the lock');
  const running = await start(out);
  assert.is((await running.state('ann')).done, 3);
  const second = await refl(['data', 'annotate', pairs, '-o', out, '--port', '0']);
  assert.is(second.code, 1);
  assert.match(errorLines(second)[0], /is being written by process/);
  const ended = await running.end('SIGINT');
  assert.is(ended.code, 130);
  assert.match(ended.stderr, /the last line was cut off/);
  assert.match(ended.stderr, /ann: 3 of 12 pairs, 0 skipped, 1 of 2 preferred lay on the left\n$/);
  assert.not.ok(existsSync(`${out}.lock`));
  const { value } = await readChoices(out, comparisons);
  assert.is(value.size, 3);
});

test('on a full disk a choice is refused, and what was there stays whole', async () => {
  const out = join(folder, 'full.jsonl');
  // Files may grow to 1024 bytes, which a few lines fill, and what tsx caches would exceed.
  const running = await start(out, [], 'export TSX_DISABLE_CACHE=1; ulimit -f 1');
  let kept = 0;
  let answer = await running.judge('ann', 'tie');
  for (; answer.ok; answer = await running.judge('ann', 'tie')) kept++;
  assert.is(answer.status, 500);
  assert.match(((await answer.json()) as { error: { message: string } }).error.message, /full\.jsonl: cannot write/);
  assert.ok(kept > 2 && kept < 12, `${kept}`);
  assert.is((await running.state('ann')).done, kept);
  await running.end('SIGINT');
  assert.is(countIn(out), kept);
  assert.ok(readFileSync(out, 'utf8').endsWith('}\n'));
});

test('beyond this machine it wants a token, given or drawn', async () => {
  const drawn = await start(join(folder, 'a.jsonl'), ['--host', '0.0.0.0']);
  const { searchParams, port } = new URL(drawn.url);
  const token = searchParams.get('token')!;
  assert.match(token, /^[\w-]{24}$/);
  assert.is((await fetch(`http://127.0.0.1:${port}/`)).status, 401);
  const entry = await fetch(`http://127.0.0.1:${port}/?token=${token}`, { redirect: 'manual' });
  assert.is(entry.status, 303);
  assert.match((await drawn.end('SIGTERM')).stderr, /The connection is not encrypted/);
  const given = await start(join(folder, 'b.jsonl'), ['--token', 'my-own-long-token']);
  assert.match(given.url, /\/\?token=my-own-long-token$/);
  assert.is((await given.state('ann').catch(() => ({ done: -1 }))).done, -1);
  await given.end('SIGTERM');
});

test('agreement is told in the end', async () => {
  const out = join(folder, 'agree.jsonl');
  const line = (annotator: string, i: number, choice: string): string =>
    `${JSON.stringify({ pair: `secret-model-${i}`, annotator, choice })}\n`;
  const couple = [
    ['a', 'a'],
    ['a', 'a'],
    ['b', 'b'],
    ['b', 'a'],
  ];
  writeFileSync(out, couple.map(([ann, bob], i) => line('ann', i, ann) + line('bob', i, bob)).join(''));
  const { stderr } = await (await start(out)).end('SIGINT');
  // Alike 3 of 4; by chance 1/2 x 3/4 + 1/2 x 1/4 = 1/2.
  assert.match(stderr, /ann, bob: 75% the same on 4 pairs, Cohen's kappa 0\.50\n$/);
});

test('wrong usage ends with 2, missing pictures with 1, and one line', async () => {
  const lost = join(folder, 'lost.jsonl');
  writeFileSync(lost, '{"pair": "x", "person": "p", "a": "a.png", "b": "gone.png"}\n');
  const blind = join(folder, 'blind.jsonl');
  writeFileSync(blind, '{"pair": "x", "person": "p", "a": "a.png", "b": "b.png", "input": "gone.png"}\n');
  const out = join(folder, 'never.jsonl');
  for (const [args, code, why] of [
    [[pairs, '--port', '70000'], 2, /port must be a whole number from 0 to 65535/],
    [[pairs, '--token', 'short'], 2, /--token needs 12 letters/],
    [[pairs, '--seed', '0.5'], 2, /seed must be a whole number/],
    [[pairs, '--host', '203.0.113.1'], 2, /cannot listen at 203\.0\.113\.1/],
    [[blind], 1, /names 1 pictures that are not there.*gone\.png/],
    [[lost], 1, /names 1 pictures that are not there.*gone\.png/],
  ] as const) {
    const outcome = await refl(['data', 'annotate', ...args, '-o', out]);
    assert.is(outcome.code, code, outcome.stderr);
    assert.is(errorLines(outcome).length, 1, outcome.stderr);
    assert.match(outcome.stderr, why);
  }
});

test.run();
