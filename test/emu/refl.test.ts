// timeout: 600 s
// Training by rewards in 16 bits on device emu:0, or the one that REFL_TEST_DEVICE names.
import { buildLibrary } from '../simt/build.ts';

process.env.REFL_TEST_DEVICE ??= 'emu:0';
if (process.env.REFL_TEST_DEVICE === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();
await import('../train/refl/half.test.ts');
