// Builds the same test programs with nvcc, for a machine with a GPU: node --import tsx test/simt/device.ts [SM...] [NAME...]
// for the chips named (80 and 90a by default). Each of build/simt/device/NAME runs there by itself, prints a line of JSON a
// case, and exits with 1 if one failed; what only a chip can tell (that the PTX of cuda/simt does what the emulator does) is
// told by these.
import { basename, dirname } from 'node:path';
import { make, pooled } from './build.ts';
import { hopper, instructions, kernels } from './kernels.ts';
import { targets } from './nvcc.ts';

const args = process.argv.slice(2);
const chips = args.filter((arg) => /^\d/.test(arg));
const names = args.filter((arg) => !/^\d/.test(arg));
const chosen = [instructions, hopper, ...kernels].filter(({ name }) => names.length === 0 || names.includes(name));
const harness = 'test/simt/harness/harness.cc';

await pooled(
  chosen.map((program) => async () => {
    // Kernels for Hopper alone make a program for Hopper alone.
    const able = program.kernels.map(targets).reduce((both, some) => both.filter((chip) => some.includes(chip)));
    const wanted = able.filter((chip) => chips.length === 0 || chips.includes(chip));
    if (!wanted.length) return;
    const code = wanted.map((chip) => `-gencode=arch=compute_${chip},code=sm_${chip}`);
    const include = [...new Set(program.kernels.map((file) => `-I${dirname(file)}`))];
    const flags = ['-std=c++17', '-fmad=false', '-O3', '--compress-mode=none', ...code];
    const common = [...flags, '-Icuda', `-I${dirname(harness)}`, ...include];
    const objects = await pooled(
      [...program.kernels, program.driver, harness].map((file) => async () => {
        const to = `build/simt/device/${wanted.join('-')}/${program.name}-${basename(file)}.o`;
        await make(to, [...common, '-x', 'cu', '-c', file], { compiler: 'nvcc', rule: `${to}.d` });
        return to;
      }),
    );
    const to = `build/simt/device/${program.name}`;
    await make(to, [...flags, ...objects], { compiler: 'nvcc', inputs: objects });
    console.log(to);
  }),
);
