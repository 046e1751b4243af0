// timeout: 600 s
// Moments in the host's memory beside device emu:0, or the one that REFL_TEST_DEVICE names.
import { buildLibrary } from '../simt/build.ts';

process.env.REFL_TEST_DEVICE ??= 'emu:0';
if (process.env.REFL_TEST_DEVICE === 'emu:0') process.env.REFL_EMU_LIB = await buildLibrary();
await import('../train/refl/offload.test.ts');
