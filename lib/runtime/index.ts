import type { TypedArray } from '../graph/dtype.ts';
import type { Tensor } from '../graph/tensor.ts';
import type { Device } from './device.ts';
import type { Parameters } from './parameters.ts';
import type { Values } from './program.ts';

export { type CudaState, cudaState } from './cuda.ts';
export { type CompileOptions, Device, type DeviceOptions, deviceNames, openDevice } from './device.ts';
export { native } from './native.ts';
export { type FileSlice, Parameters, type ParametersOptions } from './parameters.ts';
export { Program, type RunOptions, type Values } from './program.ts';

/** Compiles, runs once and disposes: for tests, small jobs and the REPL. */
export async function evaluate(
  device: Device,
  outputs: Readonly<Record<string, Tensor>>,
  feeds: Values = {},
  parameters?: Parameters,
): Promise<Record<string, TypedArray>> {
  const program = await device.compile({ outputs }, { parameters });
  try {
    return await program.run(feeds);
  } finally {
    program.dispose();
  }
}
