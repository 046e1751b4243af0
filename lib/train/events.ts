import { type FileHandle, open } from 'node:fs/promises';
import { join } from 'node:path';
import { fileError } from '../image/files.ts';

/** Castagnoli's checksum, bit-reversed polynomial 0x82f63b78, a byte at a time. */
const table = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc;
});

export function crc32c(bytes: Uint8Array): number {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = table[(crc ^ byte) & 0xff] ^ (crc >>> 8);
  return ~crc >>> 0;
}

/** The checksum as TensorFlow stores it: rotated and offset, so that a checksum of checksums stays one. */
function masked(bytes: Uint8Array): Buffer {
  const crc = crc32c(bytes);
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32LE((((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0);
  return buffer;
}

/** One TFRecord: length, its checksum, the data, their checksum. */
export function record(data: Uint8Array): Buffer {
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(data.length));
  return Buffer.concat([length, masked(length), data, masked(data)]);
}

// Fields of protocol buffers: a tag of number and wire type, then the value.
const varint = (value: number): Buffer => {
  const bytes: number[] = [];
  for (let rest = value; ; rest = Math.floor(rest / 128)) {
    if (rest < 128) return Buffer.from([...bytes, rest]);
    bytes.push((rest % 128) | 128);
  }
};
const whole = (field: number, value: number): Buffer => Buffer.concat([varint(field * 8), varint(value)]);
const bytes = (field: number, value: Uint8Array): Buffer =>
  Buffer.concat([varint(field * 8 + 2), varint(value.length), value]);
const text = (field: number, value: string): Buffer => bytes(field, Buffer.from(value));
function double(field: number, value: number): Buffer {
  const buffer = Buffer.from([field * 8 + 1, ...new Uint8Array(8)]);
  buffer.writeDoubleLE(value, 1);
  return buffer;
}
function single(field: number, value: number): Buffer {
  const buffer = Buffer.from([field * 8 + 5, ...new Uint8Array(4)]);
  buffer.writeFloatLE(value, 1);
  return buffer;
}

/** TensorFlow's Event message: when, the step, and one more field. */
const event = (seconds: number, step: number, content: Buffer): Buffer =>
  Buffer.concat([double(1, seconds), ...(step ? [whole(2, step)] : []), content]);

/**
 * Writes scalars for TensorBoard: a file of TFRecords that hold TensorFlow's Event messages. Each writer has a file of its own;
 * one that goes on from a step tells TensorBoard to forget what earlier files say of that step and later ones. What was
 * written is not synced: a crash may cost the last lines of a plot.
 */
export class EventWriter {
  private readonly path: string;
  private readonly file: FileHandle;
  private readonly now: () => number;

  private constructor(path: string, file: FileHandle, now: () => number) {
    this.path = path;
    this.file = file;
    this.now = now;
  }

  /**
   * @param folder what TensorBoard is pointed at, or one in it
   * @param from the first step that will be written
   * @param now the time in seconds, of the system's clock by default
   */
  static async open(folder: string, from: number, now = (): number => Date.now() / 1000): Promise<EventWriter> {
    // TensorBoard reads a folder's files in the order of their names.
    const path = join(folder, `events.out.tfevents.${now().toFixed(3).padStart(14, '0')}.${process.pid}`);
    const file = await open(path, 'wx').catch((error) => {
      throw fileError('write', path, error);
    });
    const writer = new EventWriter(path, file, now);
    await writer.write(0, text(3, 'brain.Event:2'));
    // A SessionLog whose status is START.
    await writer.write(from, bytes(7, whole(1, 1)));
    return writer;
  }

  /** Adds values of a step, by tag: `train/loss`. */
  scalars(step: number, values: Readonly<Record<string, number>>): Promise<void> {
    const summary = Object.entries(values).map(([tag, value]) =>
      bytes(1, Buffer.concat([text(1, tag), single(2, value)])),
    );
    return this.write(step, bytes(5, Buffer.concat(summary)));
  }

  private async write(step: number, content: Buffer): Promise<void> {
    try {
      await this.file.appendFile(record(event(this.now(), step, content)));
    } catch (error) {
      throw fileError('write', this.path, error);
    }
  }

  close(): Promise<void> {
    return this.file.close();
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
