// The test run: every test/**/*.test.ts in a process of its own, at most two at a time, each under a time limit, so that a
// promise that never settles or a crash in native code fails one file and no more. Without arguments the checks of
// formatting, lint and types run too, each counted as one test; arguments keep the files whose path contains one of them.
// A file that needs longer than the limit says so in its first line: "// timeout: 600 s". The last line is always
// "N passed, N failed", with ", N skipped" where there are any.
import { spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Counts } from './support/report.ts';

interface Job {
  name: string;
  args: string[];
  seconds: number;
  /** A check has no counts of its own: it is one test, and exit code 3 means that its tool is not installed. */
  check: boolean;
}

interface Outcome extends Counts {
  output: string;
  seconds: number;
}

const check = (name: string, ...args: string[]): Job => ({ name, args, seconds: 180, check: true });

const checks = [
  check('lint: TypeScript', 'scripts/lint.mjs', 'biome'),
  check('lint: C++', 'scripts/lint.mjs', 'clang-format'),
  check('types', 'node_modules/typescript/bin/tsc', '--noEmit'),
  check('types: page', 'node_modules/typescript/bin/tsc', '--noEmit', '-p', 'lib/server/page'),
];

function file(name: string): Job {
  const limit = /^\/\/ timeout: (\d+) s\n/.exec(readFileSync(name, 'utf8'));
  const args = ['--import', 'tsx', reporter, name];
  return { name, args, seconds: limit ? Number(limit[1]) : 180, check: false };
}

const reporter = fileURLToPath(new URL('support/report.ts', import.meta.url));
const running = new Set<number>();

/** Ends a test's process and whatever it started: it leads a process group of its own. */
function end(pid: number): void {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // The group has ended by itself.
  }
}

async function run(job: Job): Promise<Outcome> {
  const started = performance.now();
  let output = '';
  let counts: Counts | undefined;
  let late = false;
  const child = spawn(process.execPath, job.args, { detached: true, stdio: ['ignore', 'pipe', 'pipe', 'ipc'] });
  const pid = child.pid!;
  running.add(pid);
  for (const stream of [child.stdout!, child.stderr!])
    stream.setEncoding('utf8').on('data', (text) => (output += text));
  child.on('message', (message) => (counts = message as Counts));
  const timer = setTimeout(() => {
    late = true;
    end(pid);
  }, job.seconds * 1000);
  const exit = new Promise<[number | null, string | null]>((done) => child.on('exit', (...how) => done(how)));
  const closed = new Promise((done) => child.on('close', done));
  const [code, signal] = await exit;
  clearTimeout(timer);
  // A process that the test left behind would hold the output open.
  end(pid);
  await closed;
  running.delete(pid);

  const outcome = {
    passed: 0,
    failed: 0,
    skipped: 0,
    ...counts,
    output,
    seconds: (performance.now() - started) / 1000,
  };
  if (job.check) outcome[code === 0 ? 'passed' : code === 3 ? 'skipped' : 'failed'] = 1;
  else if (code !== 0 && outcome.failed === 0) outcome.failed = 1;
  else if (!counts) outcome.failed = 1;
  if (late)
    outcome.output += `\nstopped after ${job.seconds} s: something never settled, or the file needs a longer limit`;
  else if (signal) outcome.output += `\nended by ${signal}`;
  else if (!job.check && !counts) outcome.output += `\nexit code ${code} before its tests were done`;
  return outcome;
}

function report(job: Job, { passed, failed, skipped, seconds, output }: Outcome): void {
  const words = [`${passed} passed`, failed && `${failed} failed`, skipped && `${skipped} skipped`].filter(Boolean);
  console.log(`${failed ? 'FAIL' : 'ok  '} ${job.name}  ${words.join(', ')}  ${seconds.toFixed(1)} s`);
  const lines = output.trimEnd().split('\n');
  const shown = failed ? lines : lines.filter((line) => line.startsWith('skipped: '));
  for (const line of shown) if (failed || line) console.log(`     ${line}`);
}

for (const signal of ['SIGINT', 'SIGTERM'] as const) {
  process.on(signal, () => {
    running.forEach(end);
    process.exit(1);
  });
}

const filters = process.argv.slice(2);
const files = readdirSync('test', { recursive: true, encoding: 'utf8' })
  .map((name) => join('test', name))
  .filter((name) => name.endsWith('.test.ts') && (filters.length === 0 || filters.some((part) => name.includes(part))))
  .sort()
  .map(file);
const jobs = filters.length ? files : [...checks, ...files];
const total: Counts = { passed: 0, failed: 0, skipped: 0 };
if (files.length === 0) {
  console.log(`no test file matches ${filters.join(' ')}`);
  total.failed = 1;
}

async function work(): Promise<void> {
  for (let job = jobs.shift(); job; job = jobs.shift()) {
    const outcome = await run(job);
    report(job, outcome);
    for (const key of ['passed', 'failed', 'skipped'] as const) total[key] += outcome[key];
  }
}
await Promise.all(Array.from({ length: Math.min(2, availableParallelism()) }, work));

console.log(`${total.passed} passed, ${total.failed} failed${total.skipped ? `, ${total.skipped} skipped` : ''}`);
process.exitCode = total.failed ? 1 : 0;
