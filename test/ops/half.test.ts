// The 16-bit floats on the CPU, which computes in float32 and rounds: what the GPU's kernels are held against.
process.env.REFL_TEST_DEVICE = 'cpu';
await import('../emu/half.test.ts');

export {};
