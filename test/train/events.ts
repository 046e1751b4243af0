// Reads event files by the published formats, with nothing of the writer but the checksum.
import { crc32c } from '../../lib/train/events.ts';

export interface ReadEvent {
  time: number;
  step: number;
  version?: string;
  session?: number;
  values: Record<string, number>;
}

/** The fields of a protocol buffer message: numbers as numbers, messages and strings as bytes. */
function fields(message: Buffer): [number, number | Buffer][] {
  const found: [number, number | Buffer][] = [];
  let at = 0;
  const varint = (): number => {
    let value = 0;
    for (let shift = 1; ; shift *= 128) {
      const byte = message[at++];
      value += (byte & 127) * shift;
      if (byte < 128) return value;
    }
  };
  const take = (length: number): Buffer => {
    at += length;
    return message.subarray(at - length, at);
  };
  while (at < message.length) {
    const tag = varint();
    const kind = tag & 7;
    if (kind === 0) found.push([tag >>> 3, varint()]);
    else if (kind === 1) found.push([tag >>> 3, take(8).readDoubleLE()]);
    else if (kind === 5) found.push([tag >>> 3, take(4).readFloatLE()]);
    else found.push([tag >>> 3, take(varint())]);
  }
  return found;
}

function eventOf(message: Buffer): ReadEvent {
  const event: ReadEvent = { time: 0, step: 0, values: {} };
  for (const [field, value] of fields(message)) {
    if (field === 1) event.time = value as number;
    if (field === 2) event.step = value as number;
    if (field === 3) event.version = String(value);
    if (field === 7) event.session = fields(value as Buffer)[0][1] as number;
    if (field !== 5) continue;
    for (const [, entry] of fields(value as Buffer)) {
      const [[, tag], [, scalar]] = fields(entry as Buffer);
      event.values[String(tag)] = scalar as number;
    }
  }
  return event;
}

function checked(data: Buffer, at: number, length: number): Buffer {
  const bytes = data.subarray(at, at + length);
  const crc = crc32c(bytes);
  const rotated = ((crc >>> 15) | (crc << 17)) >>> 0;
  if ((rotated + 0xa282ead8) % 2 ** 32 !== data.readUInt32LE(at + length)) throw new Error('a checksum is wrong');
  return bytes;
}

/** All whole records of a file; what a crash cut off at its end is left out. */
export function readEvents(data: Buffer): ReadEvent[] {
  const events: ReadEvent[] = [];
  for (let at = 0; at + 12 <= data.length; ) {
    const length = Number(checked(data, at, 8).readBigUInt64LE());
    if (at + 16 + length > data.length) break;
    events.push(eventOf(checked(data, at + 12, length)));
    at += 16 + length;
  }
  return events;
}
