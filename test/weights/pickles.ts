import { type Member, zip } from './zip.ts';

// Pickles, operation by operation.

const bytes = (...parts: (string | number | Uint8Array)[]): Buffer =>
  Buffer.concat(
    parts.map((part) => {
      if (typeof part === 'string') return Buffer.from(part, 'latin1');
      return typeof part === 'number' ? Buffer.from([part]) : part;
    }),
  );

const length4 = (n: number): Buffer => {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE(n);
  return buffer;
};

export const protocol = bytes(0x80, 2);
export const stop = bytes('.');
export const text = (value: string): Buffer => bytes('X', length4(Buffer.byteLength(value)), Buffer.from(value));
export const int = (value: number): Buffer => bytes('J', length4(value >>> 0));
export const global = (module: string, name: string): Buffer => bytes(`c${module}\n${name}\n`);
export const tuple = (...items: Buffer[]): Buffer => bytes('(', ...items, 't');
export const list = (...items: Buffer[]): Buffer => bytes('](', ...items, 'e');
export const dict = (...items: Buffer[]): Buffer => bytes('}(', ...items, 'u');
export const call = (callee: Buffer, ...args: Buffer[]): Buffer => bytes(callee, tuple(...args), 'R');
export const put = (index: number): Buffer => bytes('q', index);
export const get = (index: number): Buffer => bytes('h', index);
export const raw = bytes;

export interface View {
  key?: string;
  type?: string;
  values?: number;
  offset?: number;
  shape?: readonly number[];
  strides?: readonly number[];
}

/** A float32 tensor [values] that is all of its storage, unless `view` says otherwise. */
export function tensor(view: View = {}): Buffer {
  const { key = '0', type = 'FloatStorage', values = 2, offset = 0, shape = [values], strides = [1] } = view;
  const id = tuple(text('storage'), global('torch', type), text(key), text('cpu'), int(values));
  const hooks = call(global('collections', 'OrderedDict'));
  const rebuild = global('torch._utils', '_rebuild_tensor_v2');
  const [sizes, steps] = [shape, strides].map((numbers) => tuple(...numbers.map(int)));
  return call(rebuild, raw(id, 'Q'), int(offset), sizes, steps, raw(0x89), hooks);
}

export const pickle = (value: Buffer): Buffer => Buffer.concat([protocol, value, stop]);

/** An archive with this pickle and storages of the given bytes. */
export function archive(
  value: Buffer,
  storages: Readonly<Record<string, Uint8Array>> = { 0: new Uint8Array(8) },
  options: { zip64?: boolean; edit?: (member: Member) => Member } = {},
): Buffer {
  const stored = Object.entries(storages).map(([key, data]) => ({ name: `a/data/${key}`, data }));
  const members = [{ name: 'a/data.pkl', data: pickle(value) }, ...stored, { name: 'a/version', data: bytes('3\n') }];
  return zip(members.map(options.edit ?? ((member) => member)), options);
}
