import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { ReflError } from '../errors.ts';
import type { DType, TypedArray } from '../graph/dtype.ts';
import type { ProgramSpec } from '../graph/program.ts';
import type { Shape } from '../graph/tensor.ts';
import type { FileView } from './parameters.ts';

/** The functions of the addon. Devices, buffers, programs and runs are numbers; every promise rejects with a code. */
export interface Native {
  info(): { isa: string };
  openCuda(path: string): { devices: number; reason: string; build: string };
  /** Opens at once what can be closed; it is usable when `opened` has resolved. `library`: the CUDA library, or empty. */
  openDevice(kind: string, threads: number, library: string, tf32: boolean): { device: number; opened: Promise<void> };
  closeDevice(device: number): void;
  createBuffer(device: number, dtype: DType, shape: Shape, frozen: boolean, packed?: DType): number;
  writeBuffer(device: number, buffer: number, values: TypedArray): Promise<void>;
  readBuffer(device: number, buffer: number): Promise<ArrayBuffer>;
  loadBuffer(device: number, buffer: number, path: string, offset: number, fileType: string): Promise<void>;
  gatherBuffer(device: number, buffer: number, slices: readonly FileView[]): Promise<void>;
  compile(
    device: number,
    spec: ProgramSpec,
    buffers: number[],
  ): Promise<{ program: number; transientBytes: number; persistentBytes: number }>;
  /** Memory for a feed that crosses in parts; {@link run} takes it, {@link release} frees one that none has taken. */
  createFeed(bytes: number): number;
  /** Copies the next part. */
  fillFeed(feed: number, part: TypedArray): void;
  run(
    device: number,
    program: number,
    feeds: readonly (TypedArray | number)[],
    onProgress: ((fraction: number) => void) | undefined,
    onTap: ((tap: number, bytes: ArrayBuffer) => void) | undefined,
  ): { run: number; promise: Promise<ArrayBuffer[]> };
  cancel(run: number): void;
  release(id: number): void;
}

let loaded: Native | undefined;

/** Loads the addon on first use. Throws ERR_NATIVE_LOAD with what was tried and what to do. */
export function native(): Native {
  if (loaded) return loaded;
  const path = fileURLToPath(new URL('../../build/Release/refl.node', import.meta.url));
  if (!existsSync(path)) {
    throw new ReflError(
      'ERR_NATIVE_LOAD',
      `the native addon is not built (${path} is missing): run "npm run build:addon"`,
    );
  }
  try {
    const load = createRequire(import.meta.url);
    load(path.replace('refl.node', 'refl_environment.node'));
    loaded = load(path) as Native;
  } catch (cause) {
    throw new ReflError(
      'ERR_NATIVE_LOAD',
      `the native addon did not load (${(cause as Error).message}): rebuild it on this machine with "npm run build:addon"`,
      { cause },
    );
  }
  return loaded;
}

/**
 * Frees what nobody disposed of, once its owner is collected. A safety net: native memory does not hurry the collector.
 * The callback must not hold the owner.
 */
export const dropped = new FinalizationRegistry<() => void>((free) => free());

/** Turns the addon's plain errors, which carry a code, into {@link ReflError}. */
export async function typed<T>(fn: () => Promise<T>): Promise<T> {
  try {
    return await fn();
  } catch (error) {
    throw toReflError(error);
  }
}

/** As {@link typed}, for calls that return at once. */
export function typedSync<T>(fn: () => T): T {
  try {
    return fn();
  } catch (error) {
    throw toReflError(error);
  }
}

function toReflError(error: unknown): unknown {
  if (error instanceof ReflError) return error;
  const { code, message } = error as { code?: string; message: string };
  return code?.startsWith('ERR_') ? new ReflError(code as ReflError['code'], message, { cause: error }) : error;
}
