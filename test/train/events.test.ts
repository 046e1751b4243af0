import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { crc32c, EventWriter } from '../../lib/train/events.ts';
import { temporaryFolder } from '../restore/support.ts';
import { readEvents } from './events.ts';

test("the checksum is Castagnoli's", () => {
  // RFC 3720, appendix B.4, and the check value of the polynomial.
  assert.is(crc32c(Buffer.from('123456789')), 0xe3069283);
  assert.is(crc32c(new Uint8Array(32)), 0x8a9136aa);
  assert.is(crc32c(new Uint8Array(32).fill(255)), 0x62a8ab43);
  assert.is(crc32c(Uint8Array.from({ length: 32 }, (_, i) => i)), 0x46dd794e);
});

test('a file begins as those of TensorFlow do, and holds what was written', async () => {
  const folder = temporaryFolder();
  let time = 1_700_000_000.25;
  {
    await using writer = await EventWriter.open(folder, 301, () => time);
    time += 1;
    await writer.scalars(301, { 'train/loss': 0.5, 'validation/accuracy': 0.875 });
    await writer.scalars(70_000, { 'train/loss': Number.NaN });
  }
  const [name] = await readdir(folder);
  assert.match(name, /^events\.out\.tfevents\.1700000000\.250\.\d+$/);
  const data = await readFile(join(folder, name));
  // The first record of any event file: its length, 24, and the masked checksum of that.
  assert.is(data.subarray(0, 12).toString('hex'), '1800000000000000a37f4b22');
  const events = readEvents(data);
  assert.equal(events.slice(0, 3), [
    { time: 1_700_000_000.25, step: 0, version: 'brain.Event:2', values: {} },
    { time: 1_700_000_000.25, step: 301, session: 1, values: {} },
    { time: 1_700_000_001.25, step: 301, values: { 'train/loss': 0.5, 'validation/accuracy': 0.875 } },
  ]);
  assert.equal([events.length, events[3].step, events[3].values['train/loss']], [4, 70_000, Number.NaN]);
});

test('two writers of one folder have files in the order in which they began', async () => {
  const folder = temporaryFolder();
  for (const [time, step] of [
    [99.5, 1],
    [1_000_000_000.001, 2],
    [1_000_000_000.002, 3],
  ]) {
    await (await EventWriter.open(folder, step, () => time)).close();
  }
  const names = (await readdir(folder)).sort();
  const steps = await Promise.all(names.map(async (name) => readEvents(await readFile(join(folder, name)))[1].step));
  assert.equal(steps, [1, 2, 3]);
});

test.run();
