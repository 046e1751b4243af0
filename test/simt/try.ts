// Builds and runs one program of kernels.ts in every build: node --import tsx test/simt/try.ts NAME [driver arguments]
import { build, run, variants } from './build.ts';
import { faults, hopper, instructions, kernels } from './kernels.ts';

const programs = [instructions, faults, hopper, ...kernels];
const [name, ...args] = process.argv.slice(2);
const program = programs.find((it) => it.name === name);
if (!program) throw new Error(`no program ${name}: ${programs.map((it) => it.name).join(', ')}`);
for (const variant of variants) {
  const started = performance.now();
  const path = await build(program, variant);
  const built = performance.now();
  const { code, signal, cases, stdout, stderr } = await run(path, args);
  const bad = cases.filter((it) => !it.ok);
  console.log(`${variant}: ${cases.length - bad.length} passed, ${bad.length} failed, exit ${code ?? signal}`);
  console.log(`  ${path}: built in ${((built - started) / 1000).toFixed(1)} s, ran in ${performance.now() - built} ms`);
  for (const it of bad) console.log(`  ${it.case}: ${it.problem}`);
  if (args.includes('--list')) console.log(stdout);
  if (stderr) console.log(stderr);
}
