// The libraries that we are measured beside: installed and built when asked for, never part of the product.
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, statSync } from 'node:fs';
import { basename } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

const sources = fileURLToPath(new URL('./peers', import.meta.url));
const built = fileURLToPath(new URL('../build/bench', import.meta.url));

const avx512 = readFileSync('/proc/cpuinfo', 'utf8').includes('avx512f');

/**
 * How PyTorch runs fastest: kernels for what the processor has (Debian's OpenBLAS does not know new ones, and would take
 * its slowest), and memory that is not given back to the system between two layers.
 */
const tuned = {
  OPENBLAS_CORETYPE: avx512 ? 'SKYLAKEX' : 'HASWELL',
  ATEN_CPU_CAPABILITY: avx512 ? 'avx512' : 'avx2',
  MALLOC_MMAP_MAX_: '0',
  MALLOC_TRIM_THRESHOLD_: '17179869184',
};

/** Everything a peer has from its caller: as many threads as we take, which sleep while they wait, as ours do. */
const environment = (threads: number): NodeJS.ProcessEnv => ({
  ...process.env,
  OMP_NUM_THREADS: `${threads}`,
  OMP_WAIT_POLICY: 'passive',
});

/** What a peer answers, and what it may say besides. */
export interface Answer {
  readonly [figure: string]: number | string | number[];
}

/** A peer's process, which answers one line with one JSON line and sleeps in between. */
export class Peer {
  private readonly child: ChildProcess;
  private readonly answers: AsyncIterator<string>;
  private readonly name: string;

  constructor(name: string, command: string, args: readonly string[], env: NodeJS.ProcessEnv) {
    this.name = name;
    this.child = spawn(command, args, { env, stdio: ['pipe', 'pipe', 'inherit'] });
    this.answers = createInterface(this.child.stdout!)[Symbol.asyncIterator]();
  }

  /** Sends words and waits for the answer. Throws {@link Refused} where that is a complaint. */
  async ask<T extends Answer>(...words: (string | number)[]): Promise<T> {
    const request = words.join(' ');
    this.child.stdin!.write(`${request}\n`);
    const { done, value } = await this.answers.next();
    if (done) throw new Error(`${this.name} ended at: ${request}`);
    const answer = JSON.parse(value);
    if (answer.error) throw new Refused(`${this.name}: ${request}: ${answer.error}`);
    return answer;
  }

  /** Ends the process, and waits until its memory is free. */
  async close(): Promise<void> {
    this.child.stdin!.end();
    if (this.child.exitCode === null) await once(this.child, 'exit');
  }
}

/** A peer could not do what it was asked: oneDNN, for one, has no Winograd for every shape. */
export class Refused extends Error {}

/** The machine's limits. */
export const openPeak = (threads: number): Peer =>
  new Peer('peak', compile('peak.cc', ['-march=native']), [], environment(threads));

/**
 * The machine's limit, GFLOP/s of `fma` or GB/s of `copy`: the best of nine short tries, since now and then two threads are
 * put on one core for as long as a try lasts.
 */
export async function limitOf(peak: Peer, what: 'fma' | 'copy', threads: number): Promise<number> {
  const rates: number[] = [];
  for (let i = 0; i < 9; i++) rates.push((await peak.ask<{ rate: number }>(what, threads)).rate);
  return Math.max(...rates);
}

export function openOneDnn(threads: number): Peer {
  install('libdnnl-dev');
  return new Peer('oneDNN', compile('onednn.cc', ['-ldnnl']), [], environment(threads));
}

export function openTorch(threads: number): Peer {
  // Without OpenBLAS PyTorch takes its products from the reference BLAS, ten times slower.
  install('python3-torch', 'libopenblas0-pthread');
  // The distribution's own Python: another one has no python3-torch.
  return new Peer('PyTorch', '/usr/bin/python3', [`${sources}/pytorch.py`], { ...environment(threads), ...tuned });
}

/** Installs Debian packages unless they are there. */
function install(...packages: string[]): void {
  const status = (name: string): string => spawnSync('dpkg', ['-s', name], { encoding: 'utf8' }).stdout ?? '';
  const missing = packages.filter((name) => !status(name).includes('Status: install ok installed'));
  if (!missing.length) return;
  if (process.getuid?.() !== 0)
    throw new Error(`please install ${missing.join(' ')} with apt-get: the bench compares with them`);
  console.error(`installing ${missing.join(' ')}`);
  const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
  execFileSync('apt-get', ['update', '-qq'], { env, stdio: ['ignore', 2, 2] });
  execFileSync('apt-get', ['install', '-y', '-qq', '--no-install-recommends', ...missing], {
    env,
    stdio: ['ignore', 'ignore', 2],
  });
}

/** Compiles a peer unless that was done since it changed, and returns its path. */
function compile(file: string, flags: readonly string[]): string {
  const program = `${built}/${basename(file, '.cc')}`;
  const changed = Math.max(...[file, 'requests.h'].map((name) => statSync(`${sources}/${name}`).mtimeMs));
  if (!existsSync(program) || statSync(program).mtimeMs < changed) {
    mkdirSync(built, { recursive: true });
    execFileSync('g++', ['-std=c++17', '-O2', '-fopenmp', `${sources}/${file}`, '-o', program, ...flags], {
      stdio: ['ignore', 2, 2],
    });
  }
  return program;
}
