// Builds the same test programs with nvcc, for a machine with a GPU: node --import tsx test/simt/device.ts [sm, 90a by default]
// [NAME ...]. Each of build/simt/device/NAME runs there by itself, prints a line of JSON a case, and exits with 1 if one
// failed; what only a chip can tell (that the PTX of cuda/simt does what the emulator does) is told by these.
import { basename, dirname } from 'node:path';
import { make, pooled } from './build.ts';
import { hopper, instructions, kernels } from './kernels.ts';

const args = process.argv.slice(2);
const target = /^\d/.test(args[0] ?? '') ? args.shift()! : '90a';
const chosen = [instructions, ...(target === '90a' ? [hopper] : []), ...kernels].filter(
  ({ name }) => args.length === 0 || args.includes(name),
);
const harness = 'test/simt/harness/harness.cc';

await pooled(
  chosen.map((program) => async () => {
    const include = [...new Set(program.kernels.map((file) => `-I${dirname(file)}`))];
    const flags = ['-std=c++17', '-fmad=false', '-O3', `-gencode=arch=compute_${target},code=sm_${target}`];
    const common = [...flags, '-Icuda', `-I${dirname(harness)}`, ...include];
    const objects = await pooled(
      [...program.kernels, program.driver, harness].map((file) => async () => {
        const to = `build/simt/device/${target}/${program.name}-${basename(file)}.o`;
        await make(to, [...common, '-x', 'cu', '-c', file], { compiler: 'nvcc', rule: `${to}.d` });
        return to;
      }),
    );
    const to = `build/simt/device/${program.name}`;
    await make(to, [...flags, ...objects], { compiler: 'nvcc', inputs: objects });
    console.log(to);
  }),
);
