import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { ALIGNMENT, type Layout, type Lifetime, planArena, spreadArena } from '../../lib/graph/planner.ts';
import { random } from '../support/random.ts';

/** Random lifetimes: many short, some long, sizes over five orders of magnitude, a few empty. */
function lifetimes(seed: number): Lifetime[] {
  const { int, next } = random(seed);
  const steps = int(1, 60);
  return Array.from({ length: int(0, 120) }, () => {
    const first = int(0, steps);
    const bytes = next() < 0.05 ? 0 : Math.floor(10 ** (next() * 5));
    return { bytes, first, last: Math.min(steps, first + (next() < 0.2 ? int(0, steps) : int(0, 4))) };
  });
}

const together = (a: Lifetime, b: Lifetime): boolean => a.first <= b.last && b.first <= a.last;
const aligned = (bytes: number): number => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;

/** The most bytes that are live at any one step: no layout can do with fewer. */
function maxLive(lives: readonly Lifetime[]): number {
  const at = (step: number): number =>
    lives.reduce((sum, l) => sum + (l.first <= step && step <= l.last ? l.bytes : 0), 0);
  return Math.max(0, ...lives.map(({ first }) => at(first)));
}

function checkLayout(lives: readonly Lifetime[], { offsets, bytes }: Layout): void {
  assert.is(offsets.length, lives.length);
  lives.forEach((a, i) => {
    assert.is(offsets[i] % ALIGNMENT, 0);
    assert.ok(offsets[i] >= 0 && offsets[i] + a.bytes <= bytes, `lifetime ${i} lies outside of the arena`);
    lives.slice(0, i).forEach((b, j) => {
      if (!together(a, b) || !a.bytes || !b.bytes) return;
      const apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
      assert.ok(apart, `lifetimes ${j} and ${i} are live together and share bytes`);
    });
  });
}

const seeds = Array.from({ length: 300 }, (_, i) => i);

test('tensors that are live together never share bytes', () => {
  for (const seed of seeds) {
    const lives = lifetimes(seed);
    checkLayout(lives, planArena(lives));
    checkLayout(lives, spreadArena(lives));
  }
});

test('the arena holds what is live at once, and never more than a buffer for each', () => {
  for (const seed of seeds) {
    const lives = lifetimes(seed);
    const { bytes } = planArena(lives);
    assert.ok(bytes >= maxLive(lives));
    assert.ok(bytes <= spreadArena(lives).bytes);
    assert.is(bytes % ALIGNMENT, 0);
  }
});

test('spreading gives every lifetime bytes of its own', () => {
  for (const seed of seeds) {
    const lives = lifetimes(seed);
    checkLayout(
      lives.map(({ bytes }) => ({ bytes, first: 0, last: 0 })),
      spreadArena(lives),
    );
    assert.is(
      spreadArena(lives).bytes,
      lives.reduce((sum, { bytes }) => sum + aligned(bytes), 0),
    );
  }
});

test('the same lifetimes give the same offsets', () => {
  for (const seed of seeds) assert.equal(planArena(lifetimes(seed)), planArena(lifetimes(seed)));
});

test('a chain needs two buffers, however long it is', () => {
  const chain = Array.from({ length: 1000 }, (_, i) => ({ bytes: 4096, first: i, last: i + 1 }));
  assert.is(planArena(chain).bytes, 2 * 4096);
});

test('no lifetimes, or empty ones, need no bytes', () => {
  assert.equal(planArena([]), { offsets: [], bytes: 0 });
  assert.equal(planArena([{ bytes: 0, first: 0, last: 3 }]), { offsets: [0], bytes: 0 });
});

test('over hundreds of random graphs the arena stays within a tenth of the most that is live', () => {
  let planned = 0;
  let least = 0;
  for (const seed of seeds) {
    const lives = lifetimes(seed).map((l) => ({ ...l, bytes: aligned(l.bytes) }));
    planned += planArena(lives).bytes;
    least += maxLive(lives);
  }
  assert.ok(planned <= 1.1 * least, `${planned} bytes planned, ${least} live at the most`);
});

test.run();
