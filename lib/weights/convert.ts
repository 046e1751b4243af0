import { ReflError } from '../errors.ts';
import type { DType } from '../graph/dtype.ts';
import { parameterLeaf, sizeOf } from '../graph/tensor.ts';
import { type Device, openDevice } from '../runtime/index.ts';
import { readChunks, withFile } from './files.ts';
import { type Entry, type FileType, fileTypes, type WeightsFile } from './format.ts';
import { type ByteSource, writeSafetensors } from './write.ts';

/** Types that floating tensors may be written as, with the graph's names of them. */
export const floatTypes = { F32: 'f32', F16: 'f16', BF16: 'bf16' } as const satisfies Partial<Record<FileType, DType>>;

export type FloatType = keyof typeof floatTypes;

export interface ConvertOptions {
  /** What floating tensors of 16 bits and more become; each keeps its type when left out. */
  readonly dtype?: FloatType;
  /** Whether values are first held against the file's checksums, where it has any; they are by default. */
  readonly verify?: boolean;
  readonly signal?: AbortSignal;
  /** Called with the fraction written, from 0 to 1. */
  readonly onProgress?: (fraction: number) => void;
}

const floats: readonly FileType[] = ['F64', 'F32', 'F16', 'BF16'];

/** How often a file's bytes may be written anew, because its tensors share them: a hostile one could fill any disk. */
const mostCopies = 4;

/**
 * Writes tensors and metadata as one safetensors file, which appears when it is whole; numbers rounded to 16 bits go to the
 * nearest. Values that lie in rows are copied from file to file; others take the memory of one tensor.
 * Throws ERR_FILE, and ERR_WEIGHTS for values that end early or lack the file's checksum.
 */
export async function convertWeights(
  file: WeightsFile,
  path: string,
  { dtype, verify = true, signal, onProgress }: ConvertOptions = {},
): Promise<void> {
  await checkSize(file);
  if (verify) await file.verify?.(signal);
  using device = await openDevice('cpu', { threads: 1 });
  const total = [...file.entries.values()].reduce((sum, { bytes }) => sum + bytes, 0);
  let done = 0;
  const sources = new Map<string, ByteSource>();
  for (const [key, entry] of file.entries) {
    const to = dtype && floats.includes(entry.dtype) ? dtype : entry.dtype;
    const chunks = async function* (): AsyncGenerator<Uint8Array> {
      const plain = to === entry.dtype && entry.pieces.every(({ strides }) => !strides);
      for await (const chunk of plain ? copied(entry) : gathered(device, entry, to)) {
        signal?.throwIfAborted();
        yield chunk;
      }
      done += entry.bytes;
      onProgress?.(total ? done / total : 1);
    };
    sources.set(key, { dtype: to, shape: entry.shape, chunks });
  }
  try {
    await writeSafetensors(path, sources, file.metadata);
  } catch (error) {
    signal?.throwIfAborted();
    throw error;
  }
}

/** What a file's tensors take when each has its own values, against what the file has. */
async function checkSize({ path, entries }: WeightsFile): Promise<void> {
  const paths = new Set([...entries.values()].flatMap(({ pieces }) => pieces.map((piece) => piece.path)));
  let stored = 0;
  for (const one of paths) stored += (await withFile(one, (opened) => opened.stat())).size;
  const bytes = [...entries.values()].reduce((sum, entry) => sum + entry.bytes, 0);
  if (bytes > mostCopies * stored) {
    const why = `its tensors share ${stored} bytes and would take ${bytes}`;
    throw new ReflError('ERR_WEIGHTS', `${path} cannot be converted: ${why}, as those of no model do`);
  }
}

async function* copied({ dtype, pieces }: Entry): AsyncGenerator<Uint8Array> {
  for (const { path, offset, shape } of pieces) yield* readChunks(path, offset, sizeOf(shape) * fileTypes[dtype]);
}

/** Types of the same width that are read and given back bit for bit. */
const carriers = { 1: ['U8', 'u8'], 2: ['BF16', 'bf16'], 4: ['I32', 'i32'], 8: ['F64', 'f64'] } as const;

/** An entry's values in rows, as another type where it is to have one. */
async function* gathered(device: Device, { dtype, shape, pieces }: Entry, to: FileType): AsyncGenerator<Uint8Array> {
  const same = carriers[fileTypes[dtype]];
  const [from, type] = to === dtype ? same : ([dtype, floatTypes[to as FloatType]] as const);
  using parameters = device.parameters();
  const leaf = parameterLeaf(shape, type);
  await parameters.gather(
    leaf,
    pieces.map((piece) => ({ ...piece, dtype: from })),
  );
  const { buffer, byteOffset, byteLength } = await parameters.read(leaf);
  yield new Uint8Array(buffer, byteOffset, byteLength);
}
