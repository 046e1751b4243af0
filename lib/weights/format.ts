import type { Shape } from '../graph/tensor.ts';

/** Bytes of one value, by the format's type names. */
export const fileTypes = {
  BOOL: 1,
  U8: 1,
  I8: 1,
  F8_E4M3: 1,
  F8_E5M2: 1,
  I16: 2,
  U16: 2,
  F16: 2,
  BF16: 2,
  I32: 4,
  U32: 4,
  F32: 4,
  F64: 8,
  I64: 8,
  U64: 8,
} as const;

export type FileType = keyof typeof fileTypes;

/** Bytes of what describes a file's tensors: a limit that keeps a hostile file from exhausting memory. */
export const largestHeader = 100_000_000;

/** A tensor's values, or a part of them along its first axis, where they lie in a file. */
export interface Piece {
  readonly path: string;
  /** The first value's place, in bytes from the start of the file. */
  readonly offset: number;
  readonly shape: Shape;
  /** How many values apart neighbours along each axis lie; they lie in rows when left out. */
  readonly strides?: Shape;
}

/** One tensor of a file. */
export interface Entry {
  readonly dtype: FileType;
  readonly shape: Shape;
  /** Bytes of all its values. */
  readonly bytes: number;
  /** Where they are, one piece after the other: most tensors have one. */
  readonly pieces: readonly Piece[];
}

/** What a file, or several that belong together, says of its tensors, checked: their values have not been read. */
export interface WeightsFile {
  readonly path: string;
  readonly metadata: Readonly<Record<string, string>>;
  readonly entries: ReadonlyMap<string, Entry>;
  /** Reads all values and throws ERR_WEIGHTS where they do not have the file's own checksums; only for forms with any. */
  readonly verify?: (signal?: AbortSignal) => Promise<void>;
}
