import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { continuousLevels, dpmPlusPlus2mSteps, dpmPlusPlus3mSdeSteps } from '../../lib/diffusion/multistep.ts';
import { rescaledGuidance, samplerSteps, samplers } from '../../lib/diffusion/samplers.ts';
import {
  alphasCumprod,
  evenTimesteps,
  leadingTimesteps,
  TRAIN_STEPS,
  trailingTimesteps,
  zeroTerminalSnr,
} from '../../lib/diffusion/schedule.ts';
import { ddimSteps, type Level, type Prediction, type Step, spacedSteps } from '../../lib/diffusion/steps.ts';

const alphas = alphasCumprod();
const names = Object.keys(samplers);

/** Walks `steps` for one number whose network is sure that the clean state is `estimate(x, alpha)`; noise by `normal`. */
function walk(
  steps: readonly Step[],
  x: number,
  estimate: (x: number, step: Step) => number,
  normal = (): number => 0,
): number {
  let [before, earlier] = [0, 0];
  for (const step of steps) {
    const clean = estimate(x, step);
    const [ofState, ofClean, ofNoise, ofBefore, ofEarlier] = step.next;
    x = ofState * x + ofClean * clean + ofNoise * normal() + ofBefore * before + ofEarlier * earlier;
    [before, earlier] = [clean, before];
  }
  return x;
}

/** The output of a network that predicts `clean`, and what the step's own weights make of it. */
function estimated(x: number, clean: number, { clean: [ofState, ofOutput] }: Step): number {
  const output = (clean - ofState * x) / ofOutput;
  return ofState * x + ofOutput * output;
}

test('timesteps are distinct, in order, inside the table and as many as asked', () => {
  for (let count = 1; count <= TRAIN_STEPS; count++) {
    const lists = [evenTimesteps(count), leadingTimesteps(count), [...trailingTimesteps(count)].reverse()];
    for (const list of lists) {
      assert.ok(
        list.every((t, i) => Number.isInteger(t) && t >= 0 && t < TRAIN_STEPS && (i === 0 || t > list[i - 1])),
        `${count} steps: ${list}`,
      );
    }
    assert.is(lists[0].length, count);
    assert.is(lists[2].length, count);
    const even = TRAIN_STEPS % count === 0 && count < TRAIN_STEPS;
    assert.ok(even ? lists[1].length === count : lists[1].length >= Math.min(count, TRAIN_STEPS - 1));
    assert.is(lists[2].at(-1), TRAIN_STEPS - 1);
  }
  assert.equal(evenTimesteps(4), [0, 333, 666, 999]);
  assert.equal(evenTimesteps(3), [0, 500, 999]); // 499.5, to the even side
  assert.equal(leadingTimesteps(4), [1, 251, 501, 751]);
  assert.equal(trailingTimesteps(4), [999, 749, 499, 249]);
  for (const bad of [0, 1001, 2.5, Number.NaN]) {
    for (const spacing of [evenTimesteps, leadingTimesteps, trailingTimesteps]) {
      assert.throws(
        () => spacing(bad),
        (error: Error & { code: string }) => error.code === 'ERR_OPTION',
      );
    }
  }
});

test('a terminal ratio of zero leaves the first alpha and the order', () => {
  const zero = zeroTerminalSnr(alphas);
  assert.is(zero[TRAIN_STEPS - 1], 0);
  assert.ok(Math.abs(zero[0] - alphas[0]) < 1e-15);
  assert.ok(zero.every((a, t) => t === 0 || a < zero[t - 1]));
});

for (const name of names) {
  for (const prediction of ['eps', 'v'] as Prediction[]) {
    test(`${name} ends at the image that a network predicting ${prediction} is sure of`, () => {
      for (const steps of [1, 2, 3, 7, 50]) {
        const walked = samplerSteps(name, { alphas, prediction, steps });
        const end = walk(walked, -1.3, (x, step) => estimated(x, 0.7, step));
        // DDIM and DPM-Solver stop at the schedule's first level, where 3% of the noise is left.
        const left = name === 'ddim' || name === 'dpm++_m2' ? Math.abs(end - Math.sqrt(alphas[0]) * 0.7) : 0;
        assert.ok(left ? left < 0.06 : Math.abs(end - 0.7) < 1e-9, `${steps} steps end at ${end}`);
      }
    });
  }
}

/** Levels evenly spaced in lambda. */
const sigmoid = (x: number): number => 1 / (1 + Math.exp(-x));
const levels = (count: number): Level[] =>
  Array.from({ length: count + 1 }, (_, i) => ({ timestep: i, alpha: sigmoid(2 * (-2 + (4.5 * i) / count)) }));

/** For data of deviation `s` about 0 the best estimate is linear, and the flow keeps x over the state's deviation. */
const s = 0.5;
const deviation = (alpha: number): number => Math.sqrt(alpha * s ** 2 + 1 - alpha);
const best = (at: readonly Level[]) => (x: number, step: Step) =>
  ((Math.sqrt(at[step.timestep].alpha) * s ** 2) / deviation(at[step.timestep].alpha) ** 2) * x;

test('on Gaussian data the samplers without noise follow the exact flow with the order they are of', () => {
  const orders: [string, number, (at: Level[]) => Step[]][] = [
    ['ddim', 1, (at) => ddimSteps(at, 'v')],
    ['dpm++_m2', 2, (at) => dpmPlusPlus2mSteps(at, 'v')],
    ['dpm++_3m_sde', 2, (at) => dpmPlusPlus3mSdeSteps(at, 'v', 0)],
  ];
  for (const [name, order, make] of orders) {
    const errorOf = (count: number): number => {
      const at = levels(count);
      const exact = deviation(at[count].alpha) / deviation(at[0].alpha);
      return Math.abs(walk(make(at), 1, best(at)) - exact);
    };
    const [coarse, fine] = [errorOf(80), errorOf(160)];
    const measured = Math.log2(coarse / fine);
    assert.ok(measured > order - 0.25, `${name}: errors ${coarse} and ${fine}, of order ${measured}`);
  }
});

test('DPM-Solver++(3M) SDE is its published sum in the scale of sigmas', () => {
  const at: Level[] = [0.01, 0.1, 0.35, 0.5, 0.8, 0.97].map((alpha, timestep) => ({ timestep, alpha }));
  const sigma = at.map(({ alpha }) => Math.sqrt((1 - alpha) / alpha));
  const estimates = [0.3, -0.2, 0.5, 0.1, 0.9];
  const noises = [0.7, -1.1, 0.2, 0.4, -0.6];
  const eta = 0.8;
  let y = 2 * sigma[0];
  for (let i = 0; i < 5; i++) {
    const width = (k: number): number => Math.log(sigma[k] / sigma[k + 1]);
    const h = width(i);
    const decay = h * (1 + eta);
    y = Math.exp(-decay) * y + (1 - Math.exp(-decay)) * estimates[i];
    const phi2 = (Math.exp(-decay) - 1) / decay + 1;
    const slope = (k: number): number => ((estimates[k] - estimates[k - 1]) * h) / width(k - 1);
    if (i === 1) y += phi2 * slope(1);
    if (i > 1) {
      const [r0, r1] = [width(i - 1) / h, width(i - 2) / h];
      const bend = (slope(i) - slope(i - 1)) / (r0 + r1);
      y += phi2 * (slope(i) + bend * r0) - (phi2 / decay - 0.5) * bend;
    }
    y += noises[i] * sigma[i + 1] * Math.sqrt(1 - Math.exp(-2 * h * eta));
  }
  const start = 2 * sigma[0] * Math.sqrt(at[0].alpha);
  const noise = noises.values();
  const end = walk(
    dpmPlusPlus3mSdeSteps(at, 'eps', eta),
    start,
    (_, { timestep }) => estimates[timestep],
    () => noise.next().value as number,
  );
  assert.ok(Math.abs(end - y * Math.sqrt(at[5].alpha)) < 1e-12, `${end} for ${y * Math.sqrt(at[5].alpha)}`);
});

test('on Gaussian data the samplers with noise end with its deviation', () => {
  const kinds: [string, (at: Level[]) => Step[]][] = [
    ['spaced', (at) => spacedSteps(at, 'v')],
    ['ddim with an eta of 1', (at) => ddimSteps(at, 'v', 1)],
    ['dpm++_3m_sde', (at) => dpmPlusPlus3mSdeSteps(at, 'v')],
  ];
  // The state is a linear combination of the start and the noises, all independent: squares of its coefficients add up.
  for (const [name, make] of kinds) {
    const at = levels(160);
    const steps = make(at);
    let variance = 0;
    for (let source = -1; source < steps.length; source++) {
      let i = 0;
      const pulse = (): number => Number(i === source);
      const response = walk(
        steps,
        source < 0 ? deviation(at[0].alpha) : 0,
        (x, step) => {
          i = step.timestep;
          return best(at)(x, step);
        },
        pulse,
      );
      variance += response ** 2;
    }
    const ratio = Math.sqrt(variance) / deviation(at[160].alpha);
    assert.ok(Math.abs(ratio - 1) < 0.02, `${name}: ${ratio} of the exact deviation`);
  }
});

test('an eta a step is taken in order', () => {
  const at = levels(3);
  const [all, each] = [ddimSteps(at, 'eps', 0.5), ddimSteps(at, 'eps', [0, 0.5, 1])];
  assert.is(each[0].next[2], 0);
  assert.is(each[1].next[2], all[1].next[2]);
  assert.is(each[2].next[2], 2 * all[2].next[2]);
});

test('continuous levels lie between whole timesteps, and end before no signal is left', () => {
  const at = continuousLevels(alphas, 6);
  assert.is(at.length, 7);
  assert.is(at[0].timestep, 999);
  assert.ok(Math.abs(at[0].alpha - alphas[999]) < 1e-15);
  assert.ok(Math.abs(at[6].alpha - alphas[0]) < 1e-15);
  assert.is(at[1].timestep, 832.5);
  assert.ok(Math.abs(at[1].alpha - Math.sqrt(alphas[832] * alphas[833])) < 1e-12);
  const cut = continuousLevels(zeroTerminalSnr(alphas), 6);
  assert.ok(cut[0].alpha > 0 && 0.5 * Math.log(cut[0].alpha / (1 - cut[0].alpha)) >= -5.1);
});

test('what cannot be sampled is said', () => {
  const options = { alphas, prediction: 'eps' as const, steps: 4 };
  const thrown = (fn: () => unknown): string => {
    try {
      fn();
    } catch (error) {
      assert.is((error as { code: string }).code, 'ERR_OPTION');
      return (error as Error).message;
    }
    return 'nothing was thrown';
  };
  assert.match(
    thrown(() => samplerSteps('toString', options)),
    'no sampler toString; there are spaced, ddim',
  );
  assert.match(
    thrown(() => samplerSteps('spaced', { ...options, alphas: zeroTerminalSnr(alphas) })),
    'no signal is left',
  );
  assert.is(samplerSteps('spaced', { ...options, alphas: zeroTerminalSnr(alphas), prediction: 'v' }).length, 4);
});

test('rescaled guidance grows from none to all of it', () => {
  assert.is(rescaledGuidance(4, 1000), 1);
  assert.is(rescaledGuidance(4, 0), 5);
  assert.ok(Math.abs(rescaledGuidance(4, 500) - (1 + 2 * (1 - Math.cos(Math.PI / 32)))) < 1e-12);
});

test.run();
