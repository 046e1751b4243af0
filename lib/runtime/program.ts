import { setImmediate } from 'node:timers/promises';
import { ReflError } from '../errors.ts';
import { arrayOf, isArrayOf, type TypedArray, viewOf } from '../graph/dtype.ts';
import type { ProgramSpec } from '../graph/program.ts';
import { sizeOf } from '../graph/tensor.ts';
import type { Device } from './device.ts';
import { dropped, native, typed, typedSync } from './native.ts';
import type { Parameters } from './parameters.ts';

export type Values = Readonly<Record<string, TypedArray>>;

export interface RunOptions {
  /**
   * Aborting stops the run at its next segment boundary; the promise rejects with the signal's reason. Once updates
   * have begun it is too late: the run goes to its end and resolves.
   */
  readonly signal?: AbortSignal;
  /**
   * Called now and then with the fraction of the program that has run, from 0 to 1, and with 1 at the end. If it throws,
   * the run is aborted as by a signal and rejects with what was thrown.
   */
  readonly onProgress?: (fraction: number) => void;
  /**
   * Called with each of the graph's taps, soon after it was computed and while the run goes on: its name and a copy of
   * its values. All have come when the run resolves. If it throws, that acts as with {@link onProgress}.
   */
  readonly tap?: (name: string, values: TypedArray) => void;
}

/** Bytes that are copied at once: about a millisecond, for which the event loop waits. */
const partBytes = 2 ** 22;

type Given = TypedArray | number;

/** Feeds as a run takes them: large ones copied part by part, between which the event loop turns. */
async function crossed(feeds: readonly TypedArray[], signal?: AbortSignal): Promise<Given[]> {
  const given: Given[] = [];
  try {
    for (const feed of feeds) {
      if (feed.byteLength <= partBytes) {
        given.push(feed);
        continue;
      }
      const id = typedSync(() => native().createFeed(feed.byteLength));
      given.push(id);
      for (let done = 0; done < feed.byteLength; done += partBytes) {
        const part = new Uint8Array(feed.buffer, feed.byteOffset + done, Math.min(partBytes, feed.byteLength - done));
        native().fillFeed(id, part);
        await setImmediate();
        signal?.throwIfAborted();
      }
    }
    return given;
  } catch (error) {
    forget(given);
    throw error;
  }
}

/** Frees what no run has taken. */
function forget(given: readonly Given[]): void {
  for (const id of given) if (typeof id === 'number') native().release(id);
}

/** A compiled graph. Runs are queued on the device's thread; the event loop stays free. */
export class Program {
  /** Bytes a run needs beyond the parameters: known, and allocated, before the first run. */
  readonly peakBytes: number;
  /**
   * Bytes of parameters and constants in the forms its kernels read, packed or plain. Programs share what they read in
   * the same form; those of frozen parameters from a file are in memory from the first run on.
   */
  readonly parameterBytes: number;
  private readonly device: Device;
  private readonly spec: ProgramSpec;
  private readonly constants: Parameters;
  private id: number | undefined;

  constructor(
    device: Device,
    id: number,
    spec: ProgramSpec,
    { transientBytes, persistentBytes }: { transientBytes: number; persistentBytes: number },
    constants: Parameters,
  ) {
    this.device = device;
    this.id = id;
    this.spec = spec;
    this.peakBytes = transientBytes;
    this.parameterBytes = persistentBytes;
    this.constants = constants;
    dropped.register(this, () => native().release(id), this);
  }

  /**
   * Runs the program once. `feeds` holds one typed array per input of the graph, row-major, of the input's dtype and size. They
   * are copied before this returns; where one is over 4 MiB it crosses in parts, between which the event loop turns: feeds must
   * then stay as they are until the promise has settled, and the run is queued when the last part is there. Resolves to copies
   * of the outputs, by name.
   */
  async run(feeds: Values = {}, { signal, onProgress, tap }: RunOptions = {}): Promise<Record<string, TypedArray>> {
    signal?.throwIfAborted();
    if (this.id === undefined) throw new ReflError('ERR_DISPOSED', 'the program was disposed');
    const id = this.id;
    const ordered = this.order(feeds);
    const thrown: unknown[] = [];
    const call = (fn: () => void): void => {
      try {
        if (!thrown.length) fn();
      } catch (error) {
        thrown.push(error);
        cancel();
      }
    };
    const report = onProgress && ((fraction: number): void => call(() => onProgress(fraction)));
    const onTap =
      tap &&
      ((i: number, bytes: ArrayBuffer): void =>
        call(() => tap(this.spec.taps[i].name, this.view(this.spec.taps[i].tensor, bytes))));
    const given = ordered.every(({ byteLength }) => byteLength <= partBytes) ? ordered : await crossed(ordered, signal);
    const { run, promise } = typedSync(() => {
      try {
        return native().run(this.device.handle, id, given, report, onTap);
      } catch (error) {
        forget(given);
        throw error;
      }
    });
    const cancel = (): void => native().cancel(run);
    signal?.addEventListener('abort', cancel, { once: true });
    try {
      const buffers = await typed(() => promise);
      report?.(1);
      if (thrown.length) throw thrown[0];
      return Object.fromEntries(this.spec.outputs.map(({ name, tensor }, i) => [name, this.view(tensor, buffers[i])]));
    } catch (error) {
      if (thrown.length) throw thrown[0];
      if ((error as ReflError).code === 'ERR_ABORTED') signal?.throwIfAborted();
      throw error;
    } finally {
      signal?.removeEventListener('abort', cancel);
      native().release(run);
    }
  }

  private order(feeds: Values): TypedArray[] {
    const known = new Set(this.spec.feeds.map(({ name }) => name));
    const unknown = Object.keys(feeds).filter((name) => !known.has(name));
    if (unknown.length) {
      throw new ReflError(
        'ERR_FEED',
        `the program takes no feed ${unknown.join(', ')}; it takes ${[...known].join(', ')}`,
      );
    }
    return this.spec.feeds.map(({ name, tensor }) => {
      const { dtype, shape } = this.spec.tensors[tensor];
      const data = feeds[name];
      if (!isArrayOf(dtype, data) || data.length !== sizeOf(shape)) {
        const got = data ? `${data.constructor?.name} of ${data.length}` : 'nothing';
        throw new ReflError('ERR_FEED', `the feed ${name} must be ${dtype}[${shape.join(',')}], got ${got}`);
      }
      return data;
    });
  }

  private view(tensor: number, bytes: ArrayBuffer): TypedArray {
    const { dtype, shape } = this.spec.tensors[tensor];
    const size = sizeOf(shape);
    return size ? viewOf(dtype, bytes, 0, size) : arrayOf(dtype, 0);
  }

  /** Frees the program's memory once its last run has ended. Safe to call twice. */
  dispose(): void {
    if (this.id !== undefined) native().release(this.id);
    this.id = undefined;
    dropped.unregister(this);
    this.constants.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
