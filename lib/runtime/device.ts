import { availableParallelism, totalmem } from 'node:os';
import { ReflError } from '../errors.ts';
import { fuse } from '../graph/fuse.ts';
import { type Graph, type LowerOptions, lower } from '../graph/program.ts';
import type { Tensor } from '../graph/tensor.ts';
import { cudaState, emulatorState } from './cuda.ts';
import { dropped, native, typed, typedSync } from './native.ts';
import { Parameters, type ParametersOptions } from './parameters.ts';
import { Program } from './program.ts';

export interface DeviceOptions {
  /** Worker threads of a CPU device; as many as the machine runs at once by default. Part of what makes results repeat. */
  readonly threads?: number;
  /**
   * Whether a CUDA device may round the operands of matmul, linear and conv2d and of their gradients from float32 to tf32
   * (10 bits of mantissa; sums stay float32), for tensor cores. Attention and all else keep float32. False by default.
   */
  readonly tf32?: boolean;
}

export interface CompileOptions extends LowerOptions {
  /** Where the graph's parameters live; needed when it has any. */
  readonly parameters?: Parameters;
}

/** A place where programs run, on a thread of its own. Open one with {@link openDevice}; dispose it when done. */
export class Device {
  readonly kind: string;
  readonly threads: number;
  private id: number | undefined;

  private constructor(kind: string, threads: number, id: number) {
    this.kind = kind;
    this.threads = threads;
    this.id = id;
    dropped.register(this, () => native().closeDevice(id), this);
  }

  /** What {@link openDevice} does once names are resolved: `library` is the CUDA library's path, or empty. */
  static async open(kind: string, threads: number, library = '', tf32 = false): Promise<Device> {
    const { device, opened } = typedSync(() => native().openDevice(kind, threads, library, tf32));
    try {
      await typed(() => opened);
    } catch (error) {
      native().closeDevice(device);
      throw error;
    }
    return new Device(kind, threads, device);
  }

  /** The native handle; throws ERR_DISPOSED after {@link dispose}. */
  get handle(): number {
    if (this.id === undefined) throw new ReflError('ERR_DISPOSED', `the device ${this.kind} was disposed`);
    return this.id;
  }

  /** An empty set of parameters on this device. */
  parameters(options: ParametersOptions = {}): Parameters {
    return new Parameters(this, options);
  }

  /**
   * Plans, verifies and binds a graph. Its peak is known afterwards, and refused here when it is beyond the memory that
   * the machine, or the container, has (ERR_OUT_OF_MEMORY, with both numbers).
   */
  async compile(graph: Graph, { parameters, ...options }: CompileOptions = {}): Promise<Program> {
    const spec = lower(options.plan === false ? graph : fuse(graph), options);
    this.checkFits(spec.arenaBytes);
    if (parameters && parameters.device !== this) {
      throw new ReflError('ERR_PROGRAM', 'the parameters belong to another device');
    }
    const constants = new Parameters(this);
    try {
      const buffers: number[] = [];
      for (const { tensor, data } of spec.persistent) {
        if (data) constants.add(tensor, { frozen: true, data });
        buffers.push((data ? constants : need(parameters, tensor)).handle(tensor));
      }
      const bound = await typed(() => native().compile(this.handle, spec, buffers));
      const program = new Program(this, bound.program, spec, bound, constants);
      try {
        this.checkFits(program.peakBytes + program.parameterBytes);
      } catch (error) {
        program.dispose();
        throw error;
      }
      return program;
    } catch (error) {
      constants.dispose();
      throw error;
    }
  }

  private checkFits(bytes: number): void {
    const memory = Math.min(totalmem(), process.constrainedMemory() || Infinity);
    if (this.kind === 'cpu' && bytes > memory) {
      throw new ReflError('ERR_OUT_OF_MEMORY', `the program needs ${bytes} bytes, the machine has ${memory}`);
    }
  }

  /**
   * Waits for the running program's current segment, then frees the device; what was running or queued on it rejects with
   * ERR_DISPOSED. Safe to call twice.
   */
  dispose(): void {
    if (this.id !== undefined) native().closeDevice(this.id);
    this.id = undefined;
    dropped.unregister(this);
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function need(parameters: Parameters | undefined, tensor: Tensor): Parameters {
  if (!parameters)
    throw new ReflError('ERR_PROGRAM', `the graph reads the parameter ${tensor}, but no parameters were given`);
  return parameters;
}

/** Device names that {@link openDevice} takes, besides cuda:N. `null` checks and plans programs, and computes nothing. */
export const deviceNames = ['auto', 'cpu', 'cuda', 'null'] as const;

/** No kernel has been measured on a GPU yet, so none is chosen without being asked for. */
const automatic = 'cpu';

const mostThreads = 256;

/**
 * Opens a device: `cpu`, `null`, or `cuda:N` (`cuda` is cuda:0); `auto` is cpu for now. Throws ERR_DEVICE on a name it does not
 * know or a device that is not usable, saying why.
 */
export async function openDevice(
  name = 'auto',
  { threads = Math.min(availableParallelism(), mostThreads), tf32 = false }: DeviceOptions = {},
): Promise<Device> {
  if (!Number.isInteger(threads) || threads < 1 || threads > mostThreads) {
    throw new ReflError('ERR_OPTION', `threads must be a whole number from 1 to ${mostThreads}, got ${threads}`);
  }
  const host = name === 'auto' ? automatic : name;
  if (host === 'cpu' || host === 'null') return Device.open(host, threads);
  const [, kind, number = '0'] = /^(cuda|emu)(?::(\d+))?$/.exec(name) ?? [];
  if (!kind) {
    throw new ReflError('ERR_DEVICE', `unknown device ${name}: expected ${deviceNames.join(', ')} or cuda:N`);
  }
  const { library, devices, reason } = kind === 'emu' ? emulatorState() : cudaState();
  if (library && Number(number) < devices) return Device.open(`${kind}:${number}`, threads, library, tf32);
  const why = reason || `the CUDA library lists ${devices} of them`;
  throw new ReflError('ERR_DEVICE', `the device ${name} is not usable: ${why}; use cpu`);
}
