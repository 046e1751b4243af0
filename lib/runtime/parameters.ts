import { ReflError } from '../errors.ts';
import { arrayOf, bytesOf, isArrayOf, type TypedArray, viewOf } from '../graph/dtype.ts';
import type { Shape, Tensor } from '../graph/tensor.ts';
import type { Device } from './device.ts';
import { dropped, native, typed, typedSync } from './native.ts';

/** Where a tensor's bytes lie in a file. `dtype` is safetensors' name for the stored type. */
export interface FileSlice {
  readonly path: string;
  readonly offset: number;
  readonly dtype: string;
}

/** Part of a tensor in a file. Its neighbours along an axis lie `strides` values apart; without strides they lie in rows. */
export interface FileView extends FileSlice {
  readonly shape: Shape;
  readonly strides?: Shape;
}

export interface ParametersOptions {
  /**
   * What the CPU's packed copies of frozen float32 parameters hold, float32 by default: in 16 bits values are rounded, and take
   * half the memory. Programs compute in float32 all the same, and parameters that no kernel packs stay as they are.
   */
  readonly packed?: 'bf16' | 'f16';
}

/** Persistent buffers of a device, each standing for a parameter leaf of the graph. Shared by any number of programs. */
export class Parameters {
  readonly device: Device;
  private readonly buffers = new Map<Tensor, number>();
  private readonly packed: 'bf16' | 'f16' | undefined;
  private disposed = false;

  constructor(device: Device, { packed }: ParametersOptions = {}) {
    this.device = device;
    this.packed = packed;
    const { buffers } = this;
    dropped.register(this, () => releaseAll(buffers), this);
  }

  /**
   * Makes a zeroed buffer for `leaf`, filled with `data` when given. No program may update a frozen one (compile refuses
   * it), so kernels keep a packed copy of it; {@link write} still replaces it whole.
   */
  add(leaf: Tensor, { frozen = false, data }: { frozen?: boolean; data?: TypedArray } = {}): void {
    this.checkOpen();
    if (this.buffers.has(leaf)) throw new ReflError('ERR_PROGRAM', `the parameter ${leaf} was added twice`);
    const { dtype, shape } = leaf;
    const packed = frozen && dtype === 'f32' ? this.packed : undefined;
    this.buffers.set(
      leaf,
      typedSync(() => native().createBuffer(this.device.handle, dtype, shape, frozen, packed)),
    );
    if (data) this.write(leaf, data);
  }

  /** True when `leaf` has a buffer here. */
  has(leaf: Tensor): boolean {
    return this.buffers.has(leaf);
  }

  /**
   * Makes a buffer for `leaf` with values from a file, converting the stored type; none is left if that fails. A frozen
   * one is only looked up: programs and {@link read} take its values from the file when they need them, and those that
   * a kernel packs take no memory beside the packed copy. The file stays open, so deleting or renaming it does no harm;
   * if it is written to, what needs the values again rejects with ERR_WEIGHTS.
   */
  async load(
    leaf: Tensor,
    { path, offset, dtype }: FileSlice,
    { frozen = false }: { frozen?: boolean } = {},
  ): Promise<void> {
    await this.fill(leaf, frozen, (id) => native().loadBuffer(this.device.handle, id, path, offset, dtype));
  }

  /**
   * As {@link load}, with the values of `views` one after the other. They are read at once, and kept in memory beside
   * what kernels pack.
   */
  async gather(leaf: Tensor, views: readonly FileView[], { frozen = false }: { frozen?: boolean } = {}): Promise<void> {
    await this.fill(leaf, frozen, (id) => native().gatherBuffer(this.device.handle, id, views));
  }

  /** Makes a buffer for `leaf` and waits for `read`; none is left if that fails. */
  private async fill(leaf: Tensor, frozen: boolean, read: (id: number) => Promise<void>): Promise<void> {
    this.add(leaf, { frozen });
    const id = this.handle(leaf);
    try {
      await typed(() => read(id));
    } catch (error) {
      native().release(id);
      this.buffers.delete(leaf);
      throw error;
    }
  }

  /** Sets a parameter's values: seen by every program run after this call. */
  write(leaf: Tensor, data: TypedArray): void {
    if (!isArrayOf(leaf.dtype, data) || data.length !== leaf.size) {
      throw new ReflError(
        'ERR_WEIGHTS',
        `${leaf} cannot be set from ${data.constructor.name} of ${data.length} values`,
      );
    }
    typedSync(() => native().writeBuffer(this.device.handle, this.handle(leaf), data)).catch(() => {});
  }

  /** A copy of a parameter's values. */
  async read(leaf: Tensor): Promise<TypedArray> {
    const bytes = await typed(() => native().readBuffer(this.device.handle, this.handle(leaf)));
    return leaf.size ? viewOf(leaf.dtype, bytes, 0, leaf.size) : arrayOf(leaf.dtype, 0);
  }

  /** Bytes of all values in the types that are packed; frozen ones may take none, or more where kernels hold several copies. */
  get bytes(): number {
    const width = ({ dtype }: Tensor): number => bytesOf(dtype === 'f32' && this.packed ? this.packed : dtype);
    return [...this.buffers.keys()].reduce((sum, t) => sum + t.size * width(t), 0);
  }

  /** The native handle of a parameter's buffer. */
  handle(leaf: Tensor): number {
    this.checkOpen();
    const id = this.buffers.get(leaf);
    if (id === undefined) throw new ReflError('ERR_PROGRAM', `the parameter ${leaf} has no values on this device`);
    return id;
  }

  /** Frees all buffers, once the last program that uses them is gone. Safe to call twice. */
  dispose(): void {
    this.disposed = true;
    dropped.unregister(this);
    releaseAll(this.buffers);
  }

  private checkOpen(): void {
    if (this.disposed) throw new ReflError('ERR_DISPOSED', 'the parameters were disposed');
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}

function releaseAll(buffers: Map<Tensor, number>): void {
  for (const id of buffers.values()) native().release(id);
  buffers.clear();
}
