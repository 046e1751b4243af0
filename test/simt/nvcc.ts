// Compiles kernels with nvcc and reads what ptxas says of them. By itself it prints, for each kernel of kernels.ts, registers a
// thread, static shared memory and bytes spilled: node --import tsx test/simt/nvcc.ts
import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { make, pooled } from './build.ts';
import { kernels } from './kernels.ts';

/** What a source is compiled for: one that only sm_90a can run says so in its name. */
export const targets = (file: string) => (/sm90|hopper/.test(file) ? ['90a'] : ['80', '90a']);

export const nvccArguments = (file: string, target: string) => [
  ...['-std=c++17', `-gencode=arch=compute_${target},code=sm_${target}`, '--Werror', 'all-warnings', '-fmad=false'],
  ...['-Xptxas', '-v,-warn-spills', '-Icuda', '-c', file],
];

/** The object's path. Fails on any warning, spill, and note that ptxas had to repair or serialise wgmma. */
export async function compile(file: string, target: string): Promise<string> {
  const to = `build/simt/nvcc/${target}/${file.replaceAll('/', '_')}.o`;
  const refuse = /C75\d\d|[1-9]\d* bytes spill/;
  await make(to, nvccArguments(file, target), { compiler: 'nvcc', rule: `${to}.d`, refuse });
  return to;
}

export interface Resources {
  kernel: string;
  registers: number;
  shared: number;
  spilled: number;
}

/** What ptxas said of each kernel of an object. */
export function resources(path: string): Resources[] {
  const found: Resources[] = [];
  const log = readFileSync(`${path}.log`, 'utf8');
  const names = spawnSync('c++filt', { input: log, encoding: 'utf8' }).stdout || log;
  for (const part of names.split(/Compiling entry function '/).slice(1)) {
    const number = (pattern: RegExp) => Number(pattern.exec(part)?.[1] ?? 0);
    found.push({
      kernel: part.slice(0, part.indexOf("'")),
      registers: number(/Used (\d+) registers/),
      shared: number(/(\d+) bytes smem/),
      spilled: number(/(\d+) bytes spill stores/),
    });
  }
  return found;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const jobs = kernels.flatMap((program) =>
    program.kernels.flatMap((file) => targets(file).map((target) => ({ file, target }))),
  );
  const reports = await pooled(
    jobs.map(
      ({ file, target }) =>
        async () =>
          resources(await compile(file, target)),
    ),
  );
  jobs.forEach(({ file, target }, i) => {
    console.log(`${file}, sm_${target}: registers, bytes of static shared memory, bytes spilled`);
    for (const it of reports[i])
      console.log(`  ${String(it.registers).padStart(3)} ${String(it.shared).padStart(6)} ${it.spilled}  ${it.kernel}`);
  });
}
