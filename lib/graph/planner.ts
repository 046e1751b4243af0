/** A span of steps during which some bytes must stay intact. `first` and `last` are step indices, both inclusive. */
export interface Lifetime {
  readonly bytes: number;
  readonly first: number;
  readonly last: number;
}

export interface Layout {
  /** Byte offset of every lifetime, in the order given. */
  readonly offsets: number[];
  /** Size of the arena: the highest byte used. */
  readonly bytes: number;
}

/** Offsets are multiples of this: a cache line of a GPU, and what Hopper's copies of swizzled tiles ask for. */
export const ALIGNMENT = 128;

const align = (n: number): number => Math.ceil(n / ALIGNMENT) * ALIGNMENT;

/**
 * Lays lifetimes out in one arena: the largest first, each at the lowest offset where no lifetime that overlaps it
 * in time lies (greedy by size; on our networks within a few per cent of the most that is ever live at once).
 * A pure function: the same lifetimes give the same offsets.
 */
export function planArena(lifetimes: readonly Lifetime[]): Layout {
  const offsets = new Array<number>(lifetimes.length).fill(0);
  const order = lifetimes.map((_, i) => i).sort((a, b) => lifetimes[b].bytes - lifetimes[a].bytes || a - b);
  // Placed lifetimes, sorted by offset, so that one sweep finds the first gap.
  const placed: number[] = [];
  let total = 0;
  for (const i of order) {
    const { bytes, first, last } = lifetimes[i];
    if (bytes === 0) continue;
    let offset = 0;
    for (const j of placed) {
      const other = lifetimes[j];
      if (other.last < first || other.first > last) continue;
      if (offsets[j] >= offset + bytes) break;
      offset = Math.max(offset, align(offsets[j] + other.bytes));
    }
    offsets[i] = offset;
    total = Math.max(total, align(offset + bytes));
    insertByOffset(placed, i, offsets);
  }
  return { offsets, bytes: total };
}

/** Gives every lifetime bytes of its own: what planned runs are compared with. */
export function spreadArena(lifetimes: readonly Lifetime[]): Layout {
  let total = 0;
  const offsets = lifetimes.map(({ bytes }) => {
    const offset = total;
    total += align(bytes);
    return offset;
  });
  return { offsets, bytes: total };
}

function insertByOffset(placed: number[], i: number, offsets: readonly number[]): void {
  let low = 0;
  let high = placed.length;
  while (low < high) {
    const mid = (low + high) >> 1;
    if (offsets[placed[mid]] <= offsets[i]) low = mid + 1;
    else high = mid;
  }
  placed.splice(low, 0, i);
}
