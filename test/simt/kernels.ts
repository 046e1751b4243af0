// The programs that the emulated tests run: one row for each kernel source and the driver that checks it. A new kernel is a
// new row: its cases then run plainly, with shuffled schedules, under AddressSanitizer, under the race detector, and with
// each of its barriers, waits and bounds checks removed.
import type { Program } from './build.ts';

export const kernels: Program[] = [
  {
    name: 'groupNorm',
    kernels: ['cuda/norm/group_norm.cu'],
    driver: 'test/simt/kernels/group_norm.cc',
    equivalent: {
      'perPixel <= kThreads': 'as many vectors as threads make one row either way',
    },
  },
];

/** The wrappers themselves. */
export const instructions: Program = {
  name: 'instructions',
  kernels: ['test/simt/kernels/instructions.cu'],
  driver: 'test/simt/kernels/instructions.cc',
};

/** Kernels with planted faults. */
export const faults: Program = {
  name: 'faults',
  kernels: ['test/simt/kernels/faults.cu'],
  driver: 'test/simt/kernels/faults.cc',
};

/** sm_90a's instructions, right and with planted faults. */
export const hopper: Program = {
  name: 'hopper',
  kernels: ['test/simt/kernels/hopper.cu'],
  driver: 'test/simt/kernels/hopper.cc',
};
