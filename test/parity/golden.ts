import { basename } from 'node:path';
import type { DType, TypedArray } from '../../lib/graph/dtype.ts';
import { input, type Shape, type Tensor } from '../../lib/graph/tensor.ts';
import { openSafetensors, readTensor, type SafetensorsFile } from '../../lib/weights/safetensors.ts';

const dtypes: Record<string, DType> = { F32: 'f32', F64: 'f64', I32: 'i32', U8: 'u8' };

/** A file of reference numbers: `in.*`, `out.*`, `grad.*` and `weights.*`, with a configuration in its metadata. */
export class Golden {
  readonly name: string;
  readonly file: SafetensorsFile;

  private constructor(file: SafetensorsFile) {
    this.file = file;
    this.name = basename(file.path, '.safetensors');
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

  /** Keys that begin with `prefix`, without it. */
  keys(prefix: string): string[] {
    return [...this.file.entries.keys()].filter((key) => key.startsWith(prefix)).map((key) => key.slice(prefix.length));
  }

  /** A feed that stands for a stored tensor, named as it is. */
  feed(key: string): Tensor {
    return input(key, this.shape(key), dtypes[this.file.entries.get(key)!.dtype]);
  }

  /** The values of the given feeds. */
  async values(feeds: Iterable<string>): Promise<Record<string, TypedArray>> {
    const values: Record<string, TypedArray> = {};
    for (const key of feeds) values[key] = await this.read(key);
    return values;
  }
}
