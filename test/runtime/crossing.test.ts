// Feeds of many megabytes: they cross to the device in parts, between which the event loop turns.
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TypedArray } from '../../lib/graph/dtype.ts';
import { add, neg } from '../../lib/graph/ops/elementwise.ts';
import { slice } from '../../lib/graph/ops/layout.ts';
import { input } from '../../lib/graph/tensor.ts';
import { native, openDevice } from '../../lib/runtime/index.ts';
import { codeOf, copiedBytes, errorOf } from '../support/runtime.ts';

const mebibyte = 2 ** 20;

test('large feeds arrive whole, in parts, beside small ones and one of the other type', async () => {
  using device = await openDevice('cpu', { threads: 1 });
  const [size, few] = [3 * mebibyte + 5, 5];
  const [x, y, bytes] = [input('x', [size]), input('y', [few]), input('bytes', [9 * mebibyte], 'u8')];
  using program = await device.compile({
    outputs: { sum: add(slice(x, [size - few], [few]), y), minus: neg(x), bytes },
  });
  // Views, which begin in the middle of their buffers.
  const feeds = {
    x: Float32Array.from({ length: size + 3 }, (_, i) => i).subarray(3),
    y: Float32Array.of(0, 1, 2, 3, 4),
    bytes: new Uint8Array(9 * mebibyte + 1).map((_, i) => i * 31).subarray(1),
  };
  let out: Record<string, TypedArray> = {};
  const parts = await copiedBytes(async () => {
    out = await program.run(feeds);
  });
  assert.equal(
    [...out.sum],
    [0, 1, 2, 3, 4].map((i) => size - few + 3 + 2 * i),
  );
  assert.ok(out.minus.every((v, i) => v === -(i + 3)));
  assert.is(Buffer.compare(Buffer.from(out.bytes.buffer), Buffer.from(feeds.bytes)), 0);
  assert.equal(
    [...parts].sort((a, b) => a - b),
    [20, 20, mebibyte, ...Array(5).fill(4 * mebibyte)],
  );
});

test('a run whose feeds are still crossing is aborted, and refused where its program is gone', async () => {
  using device = await openDevice('null');
  const program = await device.compile({ outputs: { y: neg(input('x', [8 * mebibyte])) } });
  const x = new Float32Array(8 * mebibyte);
  const stop = new AbortController();
  let parts = 0;
  const { fillFeed, createFeed } = native();
  const made: number[] = [];
  native().createFeed = (bytes) => {
    made.push(createFeed(bytes));
    return made.at(-1)!;
  };
  native().fillFeed = (feed, part) => {
    fillFeed(feed, part);
    if (++parts === 3) stop.abort(new Error('enough'));
  };
  try {
    assert.is((await errorOf(() => program.run({ x }, { signal: stop.signal }))).message, 'enough');
    assert.is(parts, 3);
    const running = codeOf(() => program.run({ x }));
    program.dispose();
    assert.is(await running, 'ERR_DISPOSED');
  } finally {
    Object.assign(native(), { fillFeed, createFeed });
  }
  // Neither left anything behind.
  assert.is(made.length, 2);
  for (const feed of made) assert.is(await codeOf(async () => fillFeed(feed, new Uint8Array(1))), 'ERR_DISPOSED');
});

test('a feed takes no more than it was made for, and is no feed before it is full', async () => {
  using device = await openDevice('null');
  using program = await device.compile({ outputs: { y: neg(input('x', [2])) } });
  const addon = native();
  const feed = addon.createFeed(8);
  addon.fillFeed(feed, Float32Array.of(1));
  assert.is(await codeOf(async () => addon.fillFeed(feed, new Uint8Array(5))), 'ERR_FEED');
  const id = (program as unknown as { id: number }).id;
  const { promise } = addon.run(device.handle, id, [feed], undefined, undefined);
  assert.is(await codeOf(() => promise), 'ERR_FEED');
  assert.is(await codeOf(async () => addon.fillFeed(feed, new Uint8Array(4))), 'ERR_DISPOSED', 'the run took it');
});

test('the event loop turns while a feed crosses and its result comes back', async () => {
  using device = await openDevice('null');
  const size = 48 * mebibyte;
  using program = await device.compile({ outputs: { y: neg(input('x', [size])) } });
  const x = new Float32Array(size).fill(1);
  await program.run({ x });
  // Other work on the machine may hold any process up, so the best of a few counts.
  const shares: number[] = [];
  for (let i = 0; i < 5 && !shares.some((share) => share < 0.25); i++) {
    const start = performance.now();
    const copy = x.slice();
    const whole = performance.now() - start;
    assert.is(copy.length, size);
    const delay = monitorEventLoopDelay({ resolution: 1 });
    delay.enable();
    await program.run({ x });
    delay.disable();
    shares.push(delay.max / 1e6 / whole);
  }
  assert.ok(Math.min(...shares) < 0.25, `the longest wait as a part of a copy of all: ${shares}`);
});

test.run();
