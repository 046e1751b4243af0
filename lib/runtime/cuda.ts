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
  /** Why no device is usable. */
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
  if (!library) {
    const hint = process.env.REFL_CUDA_LIB ? 'REFL_CUDA_LIB names no file' : 'build it with "npm run build:cuda"';
    return { library, build: undefined, reason: `there is no CUDA library at ${candidates.join(' or ')}; ${hint}` };
  }
  try {
    const { build, devices, reason } = typedSync(() => native().openCuda(library));
    const unused = `the CUDA library lists ${devices} devices, but this version runs no programs on them`;
    return { library, build, reason: devices ? unused : reason };
  } catch (error) {
    if (!(error instanceof ReflError) || error.code !== 'ERR_DEVICE') throw error;
    return { library, build: undefined, reason: error.message };
  }
}
