// Compiles kernels with nvcc and reads what ptxas says of them. By itself it prints, for each kernel of kernels.ts, registers a
// thread, static shared memory and bytes spilled: node --import tsx test/simt/nvcc.ts
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { make, pooled } from './build.ts';
import { kernels } from './kernels.ts';

/** What a source is compiled for: one that only sm_90a can run says so in its name. */
export const targets = (file: string) => (/sm90|hopper/.test(file) ? ['90a'] : ['80', '90a']);

/** For all its targets at once, and for the device alone: the host's code is compiled with the library. */
export const nvccArguments = (file: string) => [
  ...targets(file).map((target) => `-gencode=arch=compute_${target},code=sm_${target}`),
  ...['-std=c++17', '--Werror', 'all-warnings', '-fmad=false', '-Xptxas', '-v,-warn-spills', '-Icuda', '-fatbin', file],
];

/** The path of what was made. Fails on any warning, spill, and note that ptxas had to repair or serialise wgmma. */
export async function compile(file: string): Promise<string> {
  const to = `build/simt/nvcc/${file.replaceAll('/', '_')}.fatbin`;
  const refuse = /C75\d\d|[1-9]\d* bytes spill/;
  await make(to, nvccArguments(file), { compiler: 'nvcc', rule: `${to}.d`, refuse });
  return to;
}

export interface Resources {
  kernel: string;
  /** The chip, as in sm_80. */
  target: string;
  registers: number;
  shared: number;
  spilled: number;
}

/** What ptxas said of each kernel, for each chip, when `path` was made. */
export function resources(path: string): Resources[] {
  const found: Resources[] = [];
  const log = readFileSync(`${path}.log`, 'utf8');
  const names = spawnSync('c++filt', { input: log, encoding: 'utf8' }).stdout || log;
  for (const part of names.split(/Compiling entry function '/).slice(1)) {
    const number = (pattern: RegExp) => Number(pattern.exec(part)?.[1] ?? 0);
    found.push({
      kernel: part.slice(0, part.indexOf("'")),
      target: / for '(\w+)'/.exec(part)?.[1] ?? '',
      registers: number(/Used (\d+) registers/),
      shared: number(/(\d+) bytes smem/),
      spilled: number(/(\d+) bytes spill stores/),
    });
  }
  return found;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const files = kernels.flatMap((program) => program.kernels);
  const reports = await pooled(files.map((file) => async () => resources(await compile(file))));
  files.forEach((file, i) => {
    console.log(`${file}: chip, registers, bytes of static shared memory, bytes spilled`);
    for (const it of reports[i]) {
      const [registers, shared] = [String(it.registers).padStart(3), String(it.shared).padStart(6)];
      console.log(`  ${it.target.padEnd(6)} ${registers} ${shared} ${it.spilled}  ${it.kernel}`);
    }
  });
}
