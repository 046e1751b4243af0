import { basename } from 'node:path';
import type { DType, TypedArray } from '../../lib/graph/dtype.ts';
import { input, type Shape, type Tensor } from '../../lib/graph/tensor.ts';
import type { WeightsFile } from '../../lib/weights/format.ts';
import { readTensor } from '../../lib/weights/read.ts';
import { renamed } from '../../lib/weights/rename.ts';
import { openSafetensors } from '../../lib/weights/safetensors.ts';

const dtypes: Record<string, DType> = { F32: 'f32', F64: 'f64', I32: 'i32', U8: 'u8' };

/** A file of reference numbers: `in.*`, `out.*`, `grad.*` and `weights.*`, with a configuration in its metadata. */
export class Golden {
  readonly name: string;
  readonly file: WeightsFile;
  /** What F32 tensors are fed as. */
  readonly float: 'f32' | 'f64';

  private constructor(file: WeightsFile, float: 'f32' | 'f64' = 'f32') {
    this.file = file;
    this.float = float;
    this.name = basename(file.path, '.safetensors');
  }

  /** The same file for a computation in float64. */
  widened(): Golden {
    return new Golden(this.file, 'f64');
  }

  /** The same file without the tensors whose keys begin with `prefix`. */
  without(prefix: string): Golden {
    return new Golden(
      renamed(this.file, (key) => (key.startsWith(prefix) ? undefined : key)),
      this.float,
    );
  }

  static async open(path: string): Promise<Golden> {
    return new Golden(await openSafetensors(path));
  }

  /** An entry of the metadata, parsed; `otherwise` stands in for one that is not there. */
  json<T>(key: string, otherwise?: T): T {
    const text = this.file.metadata[key];
    if (text !== undefined) return JSON.parse(text) as T;
    if (otherwise !== undefined) return otherwise;
    throw new Error(`${this.file.path}: the metadata lacks ${key}`);
  }

  has(key: string): boolean {
    return this.file.entries.has(key);
  }

  shape(key: string): Shape {
    const entry = this.file.entries.get(key);
    if (!entry) throw new Error(`${this.file.path} lacks ${key}`);
    return entry.shape;
  }

  read(key: string): Promise<TypedArray> {
    return readTensor(this.file, key);
  }

  /** Whether it holds results of a computation, and not weights alone. */
  get hasResults(): boolean {
    return [...this.file.entries.keys()].some((key) => /^(out|grad)\./.test(key));
  }

  /** Keys that begin with `prefix`, without it. */
  keys(prefix: string): string[] {
    return [...this.file.entries.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
  }

  /** A feed that stands for a stored tensor, named as it is. */
  feed(key: string): Tensor {
    const stored = this.file.entries.get(key)!.dtype;
    return input(key, this.shape(key), stored === 'F32' ? this.float : dtypes[stored]);
  }

  /** The values of the given feeds. */
  async values(feeds: Iterable<string>): Promise<Record<string, TypedArray>> {
    const values: Record<string, TypedArray> = {};
    for (const key of feeds) {
      const data = await this.read(key);
      values[key] = data instanceof Float32Array && this.float === 'f64' ? Float64Array.from(data) : data;
    }
    return values;
  }
}
