/** A small repeatable generator (mulberry32) for property tests: the seed in a failure's message reproduces it. */
export function random(seed: number): {
  next(): number;
  int(low: number, high: number): number;
  pick<T>(from: readonly T[]): T;
} {
  let state = seed >>> 0;
  /** Uniform on [0, 1). */
  const next = (): number => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
  /** A whole number from low to high, both inclusive. */
  const int = (low: number, high: number): number => low + Math.floor(next() * (high - low + 1));
  return { next, int, pick: (from) => from[int(0, from.length - 1)] };
}
