import { check, defineOp, emit1, type Shape, sameShape, sizeOf, type Tensor } from '../tensor.ts';
import { sumTo } from './elementwise.ts';

/** The same bytes under another shape of the same size. One extent may be -1: it is worked out. */
export function reshape(x: Tensor, shape: Shape): Tensor {
  const known = -shape.reduce((a, b) => a * b, 1);
  return emit1('reshape', [x], { shape: shape.map((d) => (d === -1 ? x.size / known : d)) });
}
defineOp('reshape', {
  infer: ([x], attrs) => {
    const shape = attrs.shape as Shape;
    const fits = shape.every((d) => Number.isInteger(d) && d >= 0) && sizeOf(shape) === x.size;
    check(fits, `${x.size} elements do not fill [${shape.join(',')}]`);
    return [{ shape, dtype: x.dtype }];
  },
  vjp: ({ inputs: [x] }, [g]) => [reshape(g!, x!.shape)],
});

/** x with its axes reordered: axis i of the result is axis perm[i] of x. */
export const transpose = (x: Tensor, perm: readonly number[]): Tensor => emit1('transpose', [x], { perm });
defineOp('transpose', {
  infer: ([x], attrs) => {
    const perm = attrs.perm as readonly number[];
    const ok = perm.length === x.rank && x.shape.every((_, i) => perm.includes(i));
    check(ok, `[${perm.join(',')}] is no permutation of ${x.rank} axes`);
    return [{ shape: perm.map((i) => x.shape[i]), dtype: x.dtype }];
  },
  vjp: ({ inputs: [x], attrs }, [g]) => [
    transpose(
      g!,
      x!.shape.map((_, i) => (attrs.perm as number[]).indexOf(i)),
    ),
  ],
});

/** x repeated to `shape`: axes aligned at the end, a 1 stretches. */
export const broadcastTo = (x: Tensor, shape: Shape): Tensor =>
  sameShape(x.shape, shape) ? x : emit1('broadcastTo', [x], { shape });
defineOp('broadcastTo', {
  infer: ([x], attrs) => {
    const shape = attrs.shape as Shape;
    const lead = shape.length - x.rank;
    const ok = lead >= 0 && x.shape.every((d, i) => d === 1 || d === shape[lead + i]);
    check(ok, `does not stretch to [${shape.join(',')}]`);
    return [{ shape, dtype: x.dtype }];
  },
  vjp: ({ inputs: [x] }, [g]) => [sumTo(g!, x!.shape)],
});

const axisOf = (axis: number, rank: number): number => (axis < 0 ? axis + rank : axis);

/** The tensors one after another along `axis` (negative: from the end); their other extents must agree. */
export const concat = (tensors: readonly Tensor[], axis: number): Tensor =>
  tensors.length === 1 ? tensors[0] : emit1('concat', tensors, { axis: axisOf(axis, tensors[0]?.rank ?? 0) });
defineOp('concat', {
  infer: (parts, attrs) => {
    const axis = attrs.axis as number;
    check(parts.length > 0, 'needs at least one tensor');
    const [first] = parts;
    check(Number.isInteger(axis) && axis >= 0 && axis < first.rank, `has no axis ${axis}`);
    for (const t of parts) {
      check(t.dtype === first.dtype, `mixes dtypes ${first.dtype} and ${t.dtype}`);
      const fits = t.rank === first.rank && t.shape.every((d, i) => i === axis || d === first.shape[i]);
      check(fits, `extents other than axis ${axis} must agree`);
    }
    const total = parts.reduce((sum, t) => sum + t.shape[axis], 0);
    return [{ shape: first.shape.map((d, i) => (i === axis ? total : d)), dtype: first.dtype }];
  },
  vjp: ({ inputs, attrs }, [g]) => {
    const axis = attrs.axis as number;
    let at = 0;
    return inputs.map((t) => {
      const start = g!.shape.map((_, i) => (i === axis ? at : 0));
      at += t!.shape[axis];
      return slice(g!, start, t!.shape);
    });
  },
});

/** The box of x that begins at `start` and has the shape `size`, one entry an axis. */
export const slice = (x: Tensor, start: readonly number[], size: Shape): Tensor =>
  sameShape(x.shape, size) && start.every((s) => s === 0) ? x : emit1('slice', [x], { start, size });
defineOp('slice', {
  infer: ([x], attrs) => {
    const [start, size] = [attrs.start as Shape, attrs.size as Shape];
    const inside = (d: number, i: number) =>
      Number.isInteger(start[i]) &&
      Number.isInteger(size[i]) &&
      start[i] >= 0 &&
      size[i] >= 0 &&
      start[i] + size[i] <= d;
    const ok = start.length === x.rank && size.length === x.rank && x.shape.every(inside);
    check(ok, `has no box [${size.join(',')}] at [${start.join(',')}]`);
    return [{ shape: size, dtype: x.dtype }];
  },
  vjp: ({ inputs: [x], attrs }, [g]) => {
    const [start, size] = [attrs.start as Shape, attrs.size as Shape];
    return [
      pad(
        g!,
        start,
        x!.shape.map((d, i) => d - start[i] - size[i]),
      ),
    ];
  },
});

/** x cut into `parts` equal pieces along `axis` (negative: from the end). */
export function split(x: Tensor, parts: number, axis: number): Tensor[] {
  const at = axisOf(axis, x.rank);
  const size = x.shape.map((d, i) => (i === at ? d / parts : d));
  return Array.from({ length: parts }, (_, k) =>
    slice(
      x,
      x.shape.map((_, i) => (i === at ? k * size[i] : 0)),
      size,
    ),
  );
}

export type PadMode = 'zero' | 'reflect' | 'replicate';

/**
 * x with before[i] and after[i] elements added at the two ends of axis i: zeros, the mirror image without the border
 * itself (both pads then stay under the extent), or copies of the border.
 */
export const pad = (x: Tensor, before: readonly number[], after: readonly number[], mode: PadMode = 'zero'): Tensor =>
  [...before, ...after].every((p) => p === 0) ? x : emit1('pad', [x], { before, after, mode });
defineOp('pad', {
  infer: ([x], attrs) => {
    const [before, after] = [attrs.before as Shape, attrs.after as Shape];
    const whole = (p: number) => Number.isInteger(p) && p >= 0;
    const ok = before.length === x.rank && after.length === x.rank && before.every(whole) && after.every(whole);
    check(ok, `needs ${x.rank} whole pads >= 0 a side, got [${before.join(',')}] and [${after.join(',')}]`);
    x.shape.forEach((d, i) => {
      const most = attrs.mode === 'reflect' ? d - 1 : attrs.mode === 'replicate' && d === 0 ? 0 : Infinity;
      check(Math.max(before[i], after[i]) <= most, `axis ${i} of ${d} allows at most ${most} ${attrs.mode} pads`);
    });
    return [{ shape: x.shape.map((d, i) => before[i] + d + after[i]), dtype: x.dtype }];
  },
  vjp: ({ inputs: [x], attrs }, [g]) => [
    attrs.mode === 'zero' ? slice(g!, attrs.before as Shape, x!.shape) : emit1('padGrad', [g!], attrs),
  ],
});
defineOp('padGrad', {
  infer: ([dy], attrs) => {
    const [before, after] = [attrs.before as Shape, attrs.after as Shape];
    return [{ shape: dy.shape.map((d, i) => d - before[i] - after[i]), dtype: dy.dtype }];
  },
  vjp: ({ attrs }, [g]) => [emit1('pad', [g!], attrs)],
});

/** x moved cyclically by shifts[i] along axis i, towards higher indices where positive. */
export const roll = (x: Tensor, shifts: readonly number[]): Tensor => emit1('roll', [x], { shifts });
defineOp('roll', {
  infer: ([x], attrs) => {
    const shifts = attrs.shifts as readonly number[];
    check(shifts.length === x.rank && shifts.every(Number.isInteger), `needs ${x.rank} whole shifts`);
    return [{ shape: x.shape, dtype: x.dtype }];
  },
  vjp: ({ attrs }, [g]) => [
    roll(
      g!,
      (attrs.shifts as readonly number[]).map((s) => -s),
    ),
  ],
});

/** [N, H*r, W*r, C] to [N, H, W, C*r*r]; the pixel (dy, dx) of a block becomes channel c*r*r + dy*r + dx. */
export function pixelUnshuffle(x: Tensor, r: number): Tensor {
  const [n, h, w, c] = x.shape;
  const blocks = reshape(x, [n, h / r, r, w / r, r, c]);
  return reshape(transpose(blocks, [0, 1, 3, 5, 2, 4]), [n, h / r, w / r, c * r * r]);
}

/** [N, H, W, C*r*r] to [N, H*r, W*r, C]: undoes {@link pixelUnshuffle}. */
export function pixelShuffle(x: Tensor, r: number): Tensor {
  const [n, h, w, c] = x.shape;
  const blocks = reshape(x, [n, h, w, c / (r * r), r, r]);
  return reshape(transpose(blocks, [0, 1, 4, 2, 5, 3]), [n, h * r, w * r, c / (r * r)]);
}

/** [N, H, W, C] to the tokens of its non-overlapping windows, [N * H/window * W/window, window * window, C]. */
export function windowPartition(x: Tensor, window: number): Tensor {
  const [n, h, w, c] = x.shape;
  const blocks = reshape(x, [n, h / window, window, w / window, window, c]);
  return reshape(transpose(blocks, [0, 1, 3, 2, 4, 5]), [-1, window * window, c]);
}

/** Undoes {@link windowPartition} for images of `size` [H, W]. */
export function windowReverse(windows: Tensor, window: number, [h, w]: readonly [number, number]): Tensor {
  const c = windows.shape[2];
  const blocks = reshape(windows, [-1, h / window, w / window, window, window, c]);
  return reshape(transpose(blocks, [0, 1, 3, 2, 4, 5]), [-1, h, w, c]);
}
