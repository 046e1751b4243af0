import { setTimeout as wait } from 'node:timers/promises';
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { TypedArray } from '../../lib/graph/dtype.ts';
import { add, mul, neg } from '../../lib/graph/ops/elementwise.ts';
import { reshape, slice } from '../../lib/graph/ops/layout.ts';
import { matmul } from '../../lib/graph/ops/matmul.ts';
import { accumulate } from '../../lib/graph/ops/optim.ts';
import { sum } from '../../lib/graph/ops/reduce.ts';
import { softmax } from '../../lib/graph/ops/softmax.ts';
import { constant, input, parameterLeaf, type Tensor } from '../../lib/graph/tensor.ts';
import { type Device, evaluate, openDevice } from '../../lib/runtime/index.ts';
import { sameBits } from '../support/assert.ts';
import { random } from '../support/random.ts';
import { codeOf, countUp, errorOf, longFeeds, longRun } from '../support/runtime.ts';

let device: Device;
test.before(async () => {
  device = await openDevice('cpu', { threads: 2 });
});
test.after(() => device.dispose());

test('a program computes its outputs from its feeds, by name', async () => {
  const [a, b] = [input('a', [2, 3]), input('b', [3])];
  const program = await device.compile({ outputs: { total: add(a, b), product: mul(a, b) } });
  const out = await program.run({ a: Float32Array.of(1, 2, 3, 4, 5, 6), b: Float32Array.of(10, 20, 30) });
  assert.equal(out, {
    total: Float32Array.of(11, 22, 33, 14, 25, 36),
    product: Float32Array.of(10, 40, 90, 40, 100, 180),
  });
  program.dispose();
});

test('outputs may be feeds, parameters, constants and views, of every dtype, and empty', async () => {
  const p = parameterLeaf([4], 'f32');
  const parameters = device.parameters();
  parameters.add(p, { data: Float32Array.of(1, 2, 3, 4) });
  const outputs = {
    p: reshape(p, [2, 2]),
    c: constant(Float64Array.of(0.1), [1], 'f64'),
    i: input('i', [2], 'i32'),
    u: reshape(input('u', [2, 2], 'u8'), [4]),
    none: neg(input('none', [0, 3])),
  };
  const feeds = { i: Int32Array.of(-1, 2 ** 31 - 1), u: Uint8Array.of(0, 1, 254, 255), none: new Float32Array(0) };
  const out = await evaluate(device, outputs, feeds, parameters);
  assert.equal(out, { p: Float32Array.of(1, 2, 3, 4), c: Float64Array.of(0.1), ...feeds });
  parameters.dispose();
});

test('outputs are copies, and feeds are copied before run returns', async () => {
  const program = await device.compile({ outputs: { y: neg(input('x', [4])) } });
  const x = Float32Array.of(1, 2, 3, 4);
  const running = program.run({ x });
  x.fill(99);
  const first = await running;
  assert.equal(first.y, Float32Array.of(-1, -2, -3, -4));
  await program.run({ x });
  assert.equal(first.y, Float32Array.of(-1, -2, -3, -4));
  program.dispose();
});

test('a feed may be part of a larger buffer, or shared memory', async () => {
  const outputs = { y: neg(input('x', [3])) };
  const part = Float32Array.of(9, 1, 2, 3, 9).subarray(1, 4);
  assert.equal((await evaluate(device, outputs, { x: part })).y, Float32Array.of(-1, -2, -3));
  const shared = new Float32Array(new SharedArrayBuffer(16), 4);
  shared.set([1, 2, 3]);
  assert.equal((await evaluate(device, outputs, { x: shared })).y, Float32Array.of(-1, -2, -3));
});

test('feeds that are missing, unknown, or of the wrong dtype or size are refused by name', async () => {
  const program = await device.compile({ outputs: { y: add(input('x', [2]), input('z', [2])) } });
  const x = new Float32Array(2);
  const detached = new Float32Array(2);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  const bad: Record<string, Record<string, unknown>> = {
    missing: { x },
    unknown: { x, z: x, extra: x },
    dtype: { x, z: new Float64Array(2) },
    size: { x, z: new Float32Array(3) },
    array: { x, z: [1, 2] },
    view: { x, z: new DataView(new ArrayBuffer(8)) },
    detached: { x, z: detached },
  };
  for (const [what, feeds] of Object.entries(bad)) {
    const error = await errorOf(() => program.run(feeds as Record<string, TypedArray>));
    assert.is(error.code, 'ERR_FEED', what);
    assert.match(error.message, what === 'unknown' ? 'extra' : 'z', what);
  }
  await program.run({ x, z: x });
  program.dispose();
});

test('timers fire while a program runs', async () => {
  const program = await device.compile(longRun(80));
  let running = true;
  const ended = program.run(longFeeds).finally(() => {
    running = false;
  });
  const started = performance.now();
  let ticks = 0;
  for (; running; ticks++) await wait(5);
  await ended;
  const elapsed = performance.now() - started;
  assert.ok(elapsed > 50, 'the run must last for this test to say something');
  assert.ok(ticks > elapsed / 50, `${ticks} timers of 5 ms fired in ${elapsed} ms`);
  program.dispose();
});

test('progress grows, within 0 to 1, and ends with 1', async () => {
  const program = await device.compile(longRun(80));
  const seen: number[] = [];
  await program.run(longFeeds, { onProgress: (fraction) => seen.push(fraction) });
  assert.ok(seen.length > 1, 'a long run reports more than its end');
  const grows = seen.every((fraction, i) => fraction > (seen[i - 1] ?? 0) && fraction <= 1);
  assert.ok(grows, seen.join(' '));
  assert.is(seen.at(-1), 1);
  program.dispose();
});

test('taps come while the run goes on, in the order they are computed, as copies', async () => {
  const x = input('x', [512, 512]);
  const row = (t: Tensor): Tensor => slice(t, [3, 0], [1, 8]);
  const early = countUp(x, 20);
  const first = row(early);
  const late = countUp(early, 20);
  const second = row(late);
  const program = await device.compile({ outputs: { y: countUp(late, 40) }, taps: { second, first } });
  const seen: [string, TypedArray, number][] = [];
  const begun = performance.now();
  const tap = (name: string, values: TypedArray): void => void seen.push([name, values, performance.now() - begun]);
  const { y } = await program.run(longFeeds, { tap });
  const lasted = performance.now() - begun;
  assert.equal(
    seen.map(([name, values]) => [name, values]),
    [
      ['first', new Float32Array(8).fill(20)],
      ['second', new Float32Array(8).fill(40)],
    ],
  );
  assert.ok(seen[0][2] < 0.8 * lasted, `the first tap came after ${seen[0][2]} of ${lasted} ms`);
  assert.is(y[0], 80);
  assert.is((await program.run(longFeeds)).y[0], 80, 'nobody need listen');

  const stop = new Error('stop');
  let calls = 0;
  const refuse = (): void => {
    calls++;
    throw stop;
  };
  assert.is(await errorOf(() => program.run(longFeeds, { tap: refuse })), stop);
  assert.is(calls, 1);
  program.dispose();
});

test('a tap may be an output too, the last node, empty, and beside updates', async () => {
  const p = parameterLeaf([2], 'f32');
  const parameters = device.parameters();
  parameters.add(p);
  const [x, one] = [input('x', [2]), input('one', [1])];
  const y = neg(x);
  const taps = { y, none: neg(input('none', [0])) };
  const updates = [accumulate(one, [[p, y]])];
  const program = await device.compile({ outputs: { y, p }, updates, taps }, { parameters });
  const seen: Record<string, TypedArray> = {};
  const feeds = { x: Float32Array.of(1, 2), one: Float32Array.of(1), none: new Float32Array(0) };
  const tap = (name: string, values: TypedArray): void => {
    seen[name] = values;
  };
  const out = await program.run(feeds, { tap });
  assert.equal(seen, { y: Float32Array.of(-1, -2), none: new Float32Array(0) });
  assert.equal(out, { y: seen.y, p: seen.y });
  program.dispose();
  parameters.dispose();
});

test('what onProgress throws aborts the run and is what the run rejects with', async () => {
  const program = await device.compile(longRun(80));
  let calls = 0;
  const stop = new Error('stop');
  const onProgress = (): void => {
    calls++;
    throw stop;
  };
  assert.is(await errorOf(() => program.run(longFeeds, { onProgress })), stop);
  assert.is(calls, 1);
  assert.is((await program.run(longFeeds)).y[0], 80);
  program.dispose();
});

test('aborting in mid-run rejects with the reason, and the next run works', async () => {
  const program = await device.compile(longRun(100));
  const reason = { why: 'test' };
  for (const delay of [0, 5, 30]) {
    const controller = new AbortController();
    const running = program.run(longFeeds, { signal: controller.signal });
    setTimeout(() => controller.abort(reason), delay);
    assert.is(await errorOf(() => running), reason);
  }
  const already = program.run(longFeeds, { signal: AbortSignal.abort(reason) });
  assert.is(await errorOf(() => already), reason);
  const { y } = await program.run(longFeeds);
  assert.ok(y.every((v) => v === 100));
  program.dispose();
});

test('aborting one of several queued runs leaves the others alone', async () => {
  const program = await device.compile(longRun(10));
  const controllers = Array.from({ length: 6 }, () => new AbortController());
  const runs = controllers.map(({ signal }) => program.run(longFeeds, { signal }).catch((error) => error.name));
  controllers[2].abort();
  controllers[5].abort();
  const results = await Promise.all(runs);
  assert.equal(
    results.map((r) => (typeof r === 'string' ? r : r.y[0])),
    [10, 10, 'AbortError', 10, 10, 'AbortError'],
  );
  program.dispose();
});

test('an abort at any time leaves all parameters updated or none', async () => {
  const one = input('one', [1]);
  const leaves = Array.from({ length: 8 }, () => parameterLeaf([512, 512], 'f32'));
  const parameters = device.parameters();
  for (const leaf of leaves) parameters.add(leaf);
  const value = countUp(input('x', [512, 512]), 10);
  // One node each, so that an abort could come between them.
  const updates = leaves.map((leaf) => accumulate(one, [[leaf, value]]));
  const program = await device.compile({ outputs: {}, updates }, { parameters });
  const feeds = { one: Float32Array.of(1), ...longFeeds };

  const begun = performance.now();
  await program.run(feeds);
  const lasts = performance.now() - begun;
  let steps = 1;
  const { next } = random(1);
  for (let i = 0; i < 80; i++) {
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), 1.3 * lasts * next());
    await program.run(feeds, { signal: controller.signal }).then(
      () => steps++,
      (error) => assert.is(error.name, 'AbortError'),
    );
    clearTimeout(timer);
    for (const leaf of leaves) {
      const now = await parameters.read(leaf);
      assert.ok(
        now.every((v) => v === 10 * steps),
        `half an update: ${now[0] / 10} steps in place of ${steps}`,
      );
    }
  }
  assert.ok(steps > 1 && steps < 81, `${steps} of 81 runs ended, so the aborts came at the wrong times`);
  program.dispose();
  parameters.dispose();
});

test('runs of one device happen in the order they were asked for', async () => {
  const p = parameterLeaf([1], 'f32');
  const parameters = device.parameters();
  parameters.add(p);
  const scale = input('scale', [1]);
  const added = await device.compile({ outputs: { p }, updates: [accumulate(scale, [[p, scale]])] }, { parameters });
  const seen = await Promise.all(Array.from({ length: 50 }, (_, i) => added.run({ scale: Float32Array.of(i) })));
  let total = 0;
  seen.forEach(({ p }, i) => {
    total += i * i;
    assert.is(p[0], total);
  });
  added.dispose();
  parameters.dispose();
});

test('the same thread count gives the same bits: run after run, program after program, device after device', async () => {
  const [a, b] = [input('a', [65, 130]), input('b', [130, 77])];
  const y = matmul(a, b);
  const outputs = { y: softmax(y), total: sum(y), rows: sum(y, [1]) };
  const { next } = random(2);
  const noise = (n: number): Float32Array => Float32Array.from({ length: n }, () => next() - 0.5);
  const feeds = { a: noise(65 * 130), b: noise(130 * 77) };
  const expected = await evaluate(device, outputs, feeds);
  const other = await openDevice('cpu', { threads: 2 });
  for (let i = 0; i < 10; i++) {
    const again = await evaluate(i % 2 ? device : other, outputs, feeds);
    for (const name of Object.keys(outputs)) sameBits(again[name], expected[name], name);
  }
  other.dispose();
});

test('two devices run at once, each with its own threads', async () => {
  const other = await openDevice('cpu', { threads: 1 });
  const programs = await Promise.all([device.compile(longRun(40)), other.compile(longRun(60))]);
  const outs = await Promise.all(programs.map((program) => program.run(longFeeds)));
  assert.equal(
    outs.map(({ y }) => y[123]),
    [40, 60],
  );
  for (const program of programs) program.dispose();
  other.dispose();
});

test('what was disposed is refused with ERR_DISPOSED', async () => {
  const other = await openDevice('cpu', { threads: 1 });
  const p = parameterLeaf([2], 'f32');
  const graph = { outputs: { y: neg(p) } };
  const parameters = other.parameters();
  parameters.add(p);
  const program = await other.compile(graph, { parameters });

  parameters.dispose();
  parameters.dispose();
  assert.equal((await program.run()).y, Float32Array.of(-0, -0), 'a program keeps what it uses');
  for (const use of [
    () => parameters.add(parameterLeaf([1], 'f32')),
    () => parameters.write(p, new Float32Array(2)),
    () => parameters.read(p),
    () => other.compile(graph, { parameters }),
  ]) {
    assert.is(await codeOf(use), 'ERR_DISPOSED');
  }

  program[Symbol.dispose]();
  program.dispose();
  assert.is(await codeOf(() => program.run()), 'ERR_DISPOSED');

  const kept = await other.compile({ outputs: { y: neg(input('x', [1])) } });
  const alive = other.parameters();
  alive.add(p);
  other.dispose();
  other.dispose();
  for (const use of [
    () => kept.run({ x: new Float32Array(1) }),
    () => other.compile({ outputs: { y: neg(input('x', [1])) } }),
    () => alive.read(p),
    () => alive.write(p, new Float32Array(2)),
  ]) {
    assert.is(await codeOf(use), 'ERR_DISPOSED');
  }
});

test('disposing a device in mid-run ends its runs and its queue with ERR_DISPOSED, soon', async () => {
  const other = await openDevice('cpu', { threads: 1 });
  const program = await other.compile(longRun(800));
  const codes = Promise.all([1, 2, 3].map(() => codeOf(() => program.run(longFeeds))));
  const compiling = codeOf(() => other.compile(longRun(3)));
  await wait(20);
  const begun = performance.now();
  other.dispose();
  assert.ok(performance.now() - begun < 300, 'dispose waits for one segment, not for the run');
  assert.equal(await codes, ['ERR_DISPOSED', 'ERR_DISPOSED', 'ERR_DISPOSED']);
  assert.is(await compiling, 'ERR_DISPOSED');
});

test('disposing a program in mid-run lets the run end', async () => {
  const program = await device.compile(longRun(40));
  const running = program.run(longFeeds);
  program.dispose();
  assert.is((await running).y[7], 40);
});

test('devices and graphs that cannot be had are refused with a code', async () => {
  assert.is(await codeOf(() => openDevice('tpu')), 'ERR_DEVICE');
  for (const threads of [0, -1, 1.5, Number.NaN, 257])
    assert.is(await codeOf(() => openDevice('cpu', { threads })), 'ERR_OPTION');

  const p = parameterLeaf([2], 'f32');
  assert.is(await codeOf(() => device.compile({ outputs: { p } })), 'ERR_PROGRAM', 'no parameters');
  const parameters = device.parameters();
  assert.is(await codeOf(() => device.compile({ outputs: { p } }, { parameters })), 'ERR_PROGRAM', 'not among them');
  parameters.add(p);
  const other = await openDevice('cpu', { threads: 1 });
  assert.is(await codeOf(() => other.compile({ outputs: { p } }, { parameters })), 'ERR_PROGRAM', "another device's");
  other.dispose();
  parameters.dispose();
});

test('a program beyond the memory of the machine is refused, with both numbers', async () => {
  const error = await errorOf(() => device.compile({ outputs: { y: neg(input('x', [2 ** 40])) } }));
  assert.is(error.code, 'ERR_OUT_OF_MEMORY');
  assert.match(error.message, /needs 4398046511104 bytes, the machine has \d+/);
});

test('so is one whose parameters are beyond it', async () => {
  const parameters = device.parameters();
  const huge = parameterLeaf([2 ** 38], 'f32');
  parameters.add(huge);
  const error = await errorOf(() => device.compile({ outputs: { y: sum(huge) } }, { parameters }));
  assert.is(error.code, 'ERR_OUT_OF_MEMORY');
  assert.match(error.message, /needs 1099\d{9} bytes, the machine has \d+/);
  parameters.dispose();
});

test.run();
