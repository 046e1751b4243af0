import { parseArgs } from 'node:util';
import { openDevice } from '../../lib/runtime/index.ts';
import { buildLibrary } from '../simt/build.ts';
import { runParity } from './suites.ts';

const usage = `usage: npm run parity -- [--device cpu|cuda:N|emu:0] FILE...   (safetensors files of reference numbers)`;

try {
  const { values, positionals: files } = parseArgs({
    options: { device: { type: 'string', default: 'cpu' } },
    allowPositionals: true,
  });
  if (!files.length) throw new Error(usage);
  if (values.device.startsWith('emu')) process.env.REFL_EMU_LIB ??= await buildLibrary();
  using device = await openDevice(values.device);
  const { passed, failed, skipped } = await runParity(device, files, console.log);
  console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} without reference numbers` : ''}`);
  process.exitCode = failed || !passed ? 1 : 0;
} catch (error) {
  console.error(`error: ${(error as Error).message}`);
  process.exitCode = (error as Error).message === usage ? 2 : 1;
}
