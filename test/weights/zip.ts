import { crc32 } from 'node:zlib';

/** A member of an archive; what is left out is as it should be. */
export interface Member {
  readonly name: string;
  readonly data: Uint8Array;
  readonly crc?: number;
  readonly method?: number;
}

/** A zip archive of plainly stored members. With `zip64` its counts, sizes and places stand in 64 bits. */
export function zip(members: readonly Member[], { zip64 = false } = {}): Buffer {
  const parts: Buffer[] = [];
  const central: Buffer[] = [];
  let at = 0;
  const put = (part: Buffer): void => {
    parts.push(part);
    at += part.length;
  };
  for (const { name, data, crc = crc32(data), method = 0 } of members) {
    const path = Buffer.from(name);
    const small = zip64 ? 0xffffffff : data.length;
    const extra = zip64 ? fields([2, 1], [2, 24], [8, data.length], [8, data.length], [8, at]) : Buffer.alloc(0);
    const common = [
      [2, 45],
      [2, 0],
      [2, method],
      [4, 0],
      [4, crc],
      [4, small],
      [4, small],
      [2, path.length],
      [2, extra.length],
    ] as const;
    const offset = zip64 ? 0xffffffff : at;
    central.push(fields([4, 0x02014b50], [2, 45], ...common, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]), path, extra);
    put(Buffer.concat([fields([4, 0x04034b50], ...common), path, extra, data]));
  }
  const start = at;
  for (const part of central) put(part);
  const size = at - start;
  const count = members.length;
  if (zip64) {
    const record = at;
    const numbers = [[8, count], [8, count], [8, size], [8, start]] as const; // biome-ignore format: one row
    put(fields([4, 0x06064b50], [8, 44], [2, 45], [2, 45], [4, 0], [4, 0], ...numbers));
    put(fields([4, 0x07064b50], [4, 0], [8, record], [4, 1]));
  }
  const [few, short, where] = zip64 ? [0xffff, 0xffffffff, 0xffffffff] : [count, size, start];
  put(fields([4, 0x06054b50], [2, 0], [2, 0], [2, few], [2, few], [4, short], [4, where], [2, 0]));
  return Buffer.concat(parts);
}

/** Little-endian integers, each with its width in bytes. */
export function fields(...values: readonly (readonly [width: number, value: number])[]): Buffer {
  return Buffer.concat(
    values.map(([width, value]) => {
      const bytes = Buffer.alloc(width);
      if (width === 8) bytes.writeBigUInt64LE(BigInt(value));
      else bytes.writeUIntLE(value, 0, width);
      return bytes;
    }),
  );
}
