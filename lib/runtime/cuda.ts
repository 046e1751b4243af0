import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ReflError } from '../errors.ts';
import { native, typedSync } from './native.ts';

/** What became of looking for CUDA. */
export interface CudaState {
  /** The library that was found; undefined where there is none. */
  readonly library: string | undefined;
  /** What the library was built with, as "CUDA 13.0"; undefined where it could not be opened. */
  readonly build: string | undefined;
  /** How many devices can run programs. */
  readonly devices: number;
  /** Why there are none, or empty. */
  readonly reason: string;
}

/** Where the CUDA library may be: what REFL_CUDA_LIB names and nothing else, or beside the addon, or where CMake puts it. */
export function cudaCandidates(named = process.env.REFL_CUDA_LIB): string[] {
  if (named) return [named];
  return ['build/Release', 'build-cuda/Release'].map((folder) =>
    fileURLToPath(new URL(`../../${folder}/librefl_cuda.so`, import.meta.url)),
  );
}

/** Opens the CUDA library, if there is one. Never throws for what is wrong with it: that is the reason it gives. */
export function cudaState(): CudaState {
  const candidates = cudaCandidates();
  const library = candidates.find(existsSync);
  if (library) return stateOf(library);
  const hint = process.env.REFL_CUDA_LIB ? 'REFL_CUDA_LIB names no file' : 'build it with "npm run build:cuda"';
  const reason = `there is no CUDA library at ${candidates.join(' or ')}; ${hint}`;
  return { library, build: undefined, devices: 0, reason };
}

/**
 * The same kernels and the same host code under the emulator of the tests, as device emu:0: for machines without a GPU, many
 * thousand times slower. Not part of the package; REFL_EMU_LIB names the library, which test/simt builds.
 */
export function emulatorState(): CudaState {
  const library = process.env.REFL_EMU_LIB;
  if (library && existsSync(library)) return stateOf(library);
  const reason = 'it is for tests, and REFL_EMU_LIB does not name the emulated library';
  return { library: undefined, build: undefined, devices: 0, reason };
}

function stateOf(library: string): CudaState {
  try {
    return { library, ...typedSync(() => native().openCuda(library)) };
  } catch (error) {
    if (!(error instanceof ReflError) || error.code !== 'ERR_DEVICE') throw error;
    return { library, build: undefined, devices: 0, reason: error.message };
  }
}
