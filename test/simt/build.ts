// Builds a kernel's test driver with the emulator, in one of three ways, and runs it. Objects are kept under build/simt and
// made anew when a file they were made from, or a flag, has changed.
import { spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';

/** plain: fast, blocks over two threads. address: AddressSanitizer and alignment checks. race: the race detector. */
export type Variant = 'plain' | 'address' | 'race';
export const variants: Variant[] = ['plain', 'address', 'race'];

/** A program of the tests: the kernel sources, which the race detector watches, and the driver with its cases. */
export interface Program {
  name: string;
  kernels: string[];
  /** Headers with kernel code of the program's own: each is mutated with the first source that includes it. */
  headers?: string[];
  driver: string;
  /** Mutations that no test can see, by what they change, and why. */
  equivalent?: Record<string, string>;
  /** Part of the names of the cases that mutations are tried on, where all would take too long. */
  mutationCases?: string;
}

const cxx = process.env.CXX ?? 'g++';
const root = 'build/simt';
const v3 = /\bavx2\b.*\bfma\b|\bfma\b.*\bavx2\b/.test(
  existsSync('/proc/cpuinfo') ? (/^flags.*$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[0] ?? '') : '',
);
const common = [
  ...['-std=c++17', '-g1', '-ffp-contract=off', '-fno-strict-aliasing', '-Wall', '-Wextra', '-Wno-unknown-pragmas'],
  ...(v3 ? ['-march=x86-64-v3', '-mtune=native'] : []),
  ...['-Icuda', '-Itest/simt/emulator', '-Itest/simt/harness'],
  // The same objects serve the emulated library, which is opened at run time.
  ...['-fPIC', '-fvisibility=hidden', '-ftls-model=initial-exec'],
];
/**
 * Flags of the emulator and the kernels, and those of kernels alone. A driver is compiled once, plainly: only what kernels do
 * is watched. Compiling takes most of the tests' time, thus no more than -O1, and -O0 where AddressSanitizer checks.
 */
const flags: Record<Variant, { all: string[]; kernel: string[] }> = {
  plain: { all: ['-O1'], kernel: [] },
  address: {
    all: ['-O1', '-fno-omit-frame-pointer', '-fsanitize=address'],
    // Optimising the checks takes longer than they take when they run unoptimised.
    kernel: ['-O0', '-fsanitize=alignment,bounds,shift', '-fno-sanitize-recover=all'],
  },
  race: {
    all: ['-O1', '-DSIMT_RACE'],
    kernel: ['-fsanitize=thread', '--param=tsan-instrument-func-entry-exit=0'],
  },
};

export interface Finished {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

/** Runs a command to its end; never rejects for what the command does. */
export function execute(command: string, args: string[], seconds = 300): Promise<Finished> {
  return new Promise((done, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: seconds * 1000 });
    let stdout = '';
    let stderr = '';
    child.stdout.setEncoding('utf8').on('data', (text) => (stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text) => (stderr += text));
    child.on('error', reject);
    child.on('close', (code, signal) => done({ code, signal, stdout, stderr }));
  });
}

const digest = (text: string | Buffer) => createHash('sha256').update(text).digest('hex').slice(0, 16);

/** Changes with the contents of `files`, or is undefined where one is gone. */
function stateOf(command: string, files: string[]): string | undefined {
  if (!files.every((file) => existsSync(file))) return undefined;
  return digest(command + files.map((file) => digest(readFileSync(file))).join());
}

const busy = new Set<string>();

/** The process that holds a lock; 0 where it was released just now, or is not yet written in it. */
function ownerOf(lock: string): number {
  try {
    return Number(readFileSync(lock, 'utf8'));
  } catch {
    return 0;
  }
}

/** Two processes that want the same file: the later one waits and finds it made. */
async function locked(name: string, fn: () => Promise<void>): Promise<void> {
  const lock = `${name}.lock`;
  for (;;) {
    if (!busy.has(lock)) {
      try {
        writeFileSync(lock, String(process.pid), { flag: 'wx' });
        break;
      } catch {
        const owner = ownerOf(lock);
        try {
          if (owner) process.kill(owner, 0);
        } catch {
          rmSync(lock, { force: true });
        }
      }
    }
    await sleep(50);
  }
  busy.add(lock);
  try {
    await fn();
  } finally {
    busy.delete(lock);
    rmSync(lock, { force: true });
  }
}

/** The files that the compiler read for an object, from the rule it wrote. */
function dependencies(file: string): string[] | undefined {
  if (!existsSync(file)) return undefined;
  return readFileSync(file, 'utf8')
    .replace(/^[^:]*:/, '')
    .split(/[\s\\]+/)
    .filter((name) => name && !/^\/(usr|opt)\//.test(name));
}

export interface Recipe {
  compiler?: string;
  /** What it is made from: a list, or the rule that the compiler is to write. */
  inputs?: string[];
  rule?: string;
  /** Output that makes it a failure. */
  refuse?: RegExp;
}

/** Runs the compiler for `target`, unless that was made by the same command from the same files; what it said is kept in
 *  TARGET.log. */
export async function make(target: string, args: string[], recipe: Recipe): Promise<void> {
  const { compiler = cxx, rule, refuse } = recipe;
  const all = rule ? [...args, '-MMD', '-MF', rule] : args;
  const inputs = () => recipe.inputs ?? dependencies(rule!);
  const command = [compiler, ...all].join(' ');
  const note = `${target}.made`;
  const fresh = () => {
    const files = [note, target, `${target}.log`].every((name) => existsSync(name)) ? inputs() : undefined;
    return files !== undefined && readFileSync(note, 'utf8') === stateOf(command, files);
  };
  if (fresh()) return;
  mkdirSync(dirname(target), { recursive: true });
  await locked(target, async () => {
    if (fresh()) return;
    const { code, stdout, stderr } = await execute(compiler, [...all, '-o', `${target}.new`]);
    if (code !== 0 || refuse?.test(stderr)) throw new Error(`${command} failed:\n${stdout}${stderr}`);
    if (stderr.trim() && !refuse) console.error(stderr.trim());
    renameSync(`${target}.new`, target);
    writeFileSync(`${target}.log`, stderr);
    writeFileSync(note, stateOf(command, inputs() ?? []) ?? '');
  });
}

async function object(source: string, variant: Variant, kernel: boolean, extra: string[] = []): Promise<string> {
  const chosen = flags[variant];
  const options = [...common, ...extra, ...chosen.all, ...(kernel ? chosen.kernel : [])];
  const target = join(root, variant, `${source.replaceAll('/', '_').replace(/^\.+/, '')}.o`);
  await make(target, [...options, ...(kernel ? ['-x', 'c++'] : []), '-c', source], { rule: `${target}.d` });
  return target;
}

/** Runs the jobs, as many at once as there are processors. */
export async function pooled<T>(jobs: (() => Promise<T>)[]): Promise<T[]> {
  const results: T[] = [];
  let next = 0;
  const work = async () => {
    while (next < jobs.length) {
      const i = next++;
      results[i] = await jobs[i]();
    }
  };
  await Promise.all(Array.from({ length: Math.min(2, availableParallelism()) }, work));
  return results;
}

const sourcesIn = (folder: string): string[] =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.cc'))
    .map((name) => join(folder, name));

/** Builds the program and returns its path. `kernels` stands in for the program's own sources. */
export async function build(program: Program, variant: Variant, kernels = program.kernels): Promise<string> {
  const own = [...sourcesIn('test/simt/emulator'), ...sourcesIn('test/simt/harness')];
  const extra = [...new Set(program.kernels.map((file) => `-I${dirname(file)}`))];
  const quiet = kernels === program.kernels ? [] : ['-w']; // a mutated source is not for reading
  const objects = await pooled([
    ...kernels.map((file) => () => object(file, variant, true, [...extra, ...quiet])),
    () => object(program.driver, 'plain', false, extra),
    ...own.map((file) => () => object(file, variant, false)),
  ]);
  const changed = kernels === program.kernels ? '' : `-${digest(kernels.join())}`;
  const target = join(root, variant, `${basename(program.name)}${changed}`);
  const sanitizers = variant === 'address' ? ['-fsanitize=address,undefined'] : [];
  await make(target, [...objects, ...sanitizers, '-lpthread'], { inputs: objects });
  return target;
}

/** Objects of the CUDA backend, host code and all kernels, over the emulator and a stand-in for CUDA's runtime. */
async function backend(more: string[]): Promise<string[]> {
  const sources: Record<string, string[]> = JSON.parse(readFileSync('sources.json', 'utf8'));
  const generated = join(root, 'generated');
  const { code, stderr } = await execute(process.execPath, ['scripts/op-table.mjs', generated]);
  if (code !== 0) throw new Error(`scripts/op-table.mjs failed:\n${stderr}`);
  const host = ['-DREFL_CUDART=1', '-Inative', `-I${generated}`, '-Itest/simt/runtime'];
  return pooled([
    ...sources.kernels.map((file) => () => object(file, 'plain', true, [`-I${dirname(file)}`])),
    ...[...more, ...sources.backend, ...sources.binders, ...sourcesIn('test/simt/runtime')].map(
      (file) => () => object(file, 'plain', false, host),
    ),
    ...sourcesIn('test/simt/emulator').map((file) => () => object(file, 'plain', false)),
  ]);
}

/** Builds the CUDA library over the emulator and returns its path: REFL_EMU_LIB of device emu:0. */
export async function buildLibrary(): Promise<string> {
  const objects = await backend(JSON.parse(readFileSync('sources.json', 'utf8')).cuda);
  const target = join(root, 'librefl_emu.so');
  await make(target, ['-shared', ...objects, '-lpthread'], { inputs: objects });
  return resolve(target);
}

/** Builds bench/cuda over the emulator and returns its path. */
export async function buildBench(): Promise<string> {
  const objects = await backend(['bench/cuda/operators.cc']);
  const target = join(root, 'bench');
  await make(target, [...objects, '-lpthread'], { inputs: objects });
  return resolve(target);
}

export interface CaseResult {
  case: string;
  ok: boolean;
  ms: number;
  error: number;
  problem?: string;
}

export interface RunResult extends Finished {
  cases: CaseResult[];
}

/** Runs a built program; `cases` holds what it reported before it ended, however it did. */
export async function run(path: string, args: string[] = [], seconds?: number): Promise<RunResult> {
  const finished = await execute(path, args, seconds);
  const lines = finished.stdout.split('\n').filter((line) => line.startsWith('{'));
  return { ...finished, cases: lines.map((line) => JSON.parse(line) as CaseResult) };
}
