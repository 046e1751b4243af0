import { accumulate, adamw, allFinite, assign, ema, globalNorm } from '../../lib/graph/ops/optim.ts';
import type { CaseInput, OpCase, UpdateCase } from '../support/opcase.ts';

const one = (value: number): CaseInput => ({ shape: [1], values: [value] });

/** Two tensors, one beyond the elements that a thread takes at the least. */
const pair = (a: string, b: string, range?: [number, number]): Record<string, CaseInput> => ({
  [a]: { shape: [3, 11], range },
  [b]: { shape: [40001], range },
});

export const cases: OpCase[] = [
  {
    name: 'two tensors',
    op: 'globalNorm',
    inputs: { a: { shape: [5, 7], nograd: true }, b: { shape: [33001], nograd: true } },
    build: ({ a, b }) => globalNorm([a, b]),
  },
  {
    name: 'finite, infinite and NaN',
    op: 'allFinite',
    inputs: {
      a: { shape: [5, 7], nograd: true },
      b: { shape: [3], values: [1, Number.POSITIVE_INFINITY, 0], nograd: true },
      c: {
        shape: [33001],
        values: Array.from({ length: 33001 }, (_, i) => (i === 32999 ? Number.NaN : 1)),
        nograd: true,
      },
    },
    build: ({ a, b, c }) => [allFinite([a]), allFinite([a, b]), allFinite([c, a])],
  },
];

export const updates: UpdateCase[] = [
  {
    name: 'two groups with their own decay',
    op: 'adamw',
    parameters: { ...pair('p0', 'p1'), ...pair('m0', 'm1', [-0.1, 0.1]), ...pair('v0', 'v1', [0.001, 0.1]) },
    inputs: { ...pair('g0', 'g1'), lr: one(0.01), step: one(3), scale: one(0.5), ok: one(1) },
    build: (t) =>
      adamw({ lr: t.lr, step: t.step, scale: t.scale, ok: t.ok }, [
        { param: t.p0, grad: t.g0, m: t.m0, v: t.v0, weightDecay: 0 },
        { param: t.p1, grad: t.g1, m: t.m1, v: t.v1, weightDecay: 0.1 },
      ]),
  },
  {
    name: 'two pairs',
    op: 'ema',
    parameters: pair('a0', 'a1'),
    inputs: { ...pair('x0', 'x1'), decay: one(0.99), ok: one(1) },
    build: ({ a0, a1, x0, x1, decay, ok }) =>
      ema(decay, ok, [
        [a0, x0],
        [a1, x1],
      ]),
  },
  {
    name: 'two pairs',
    op: 'accumulate',
    parameters: pair('t0', 't1'),
    inputs: { ...pair('x0', 'x1'), scale: one(0.25) },
    build: ({ t0, t1, x0, x1, scale }) =>
      accumulate(scale, [
        [t0, x0],
        [t1, x1],
      ]),
  },
  {
    name: 'two pairs',
    op: 'assign',
    parameters: pair('t0', 't1'),
    inputs: { ...pair('x0', 'x1'), ok: one(1) },
    build: ({ t0, t1, x0, x1, ok }) =>
      assign(ok, [
        [t0, x0],
        [t1, x1],
      ]),
  },
];
