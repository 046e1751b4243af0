import { randomNormal, randomUniform } from '../../lib/graph/ops/random.ts';
import type { OpCase } from '../support/opcase.ts';

const state = { shape: [4], dtype: 'i32' as const, values: [17, -3, 5, 9] };

export const cases: OpCase[] = [
  {
    name: 'odd sizes and a float64 output',
    op: 'randomUniform',
    inputs: { state },
    build: ({ state }) => [randomUniform(state, [1]), randomUniform(state, [3, 43]), randomUniform(state, [67], 'f64')],
  },
  {
    name: 'odd sizes and a float64 output',
    op: 'randomNormal',
    inputs: { state },
    build: ({ state }) => [randomNormal(state, [1]), randomNormal(state, [3, 43]), randomNormal(state, [67], 'f64')],
  },
];
