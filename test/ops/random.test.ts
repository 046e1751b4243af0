// The random operators against a second implementation of Philox4x32-10 that reproduces the published vectors, and the
// distribution of the normals.
import { test } from 'uvu';
import * as assert from 'uvu/assert';
import { randomNormal, randomUniform } from '../../lib/graph/ops/random.ts';
import { input } from '../../lib/graph/tensor.ts';
import { evaluate, openDevice } from '../../lib/runtime/index.ts';
import { close, sameBits } from '../support/assert.ts';

type Words = [number, number, number, number];

/** One block of Philox4x32-10 (Salmon et al. 2011), in BigInt arithmetic. */
function philox(counter: Words, key: [number, number]): Words {
  let [a, b, c, d] = counter.map(BigInt);
  let [k0, k1] = key.map(BigInt);
  const low = (v: bigint): bigint => v & 0xffffffffn;
  for (let round = 0; round < 10; round++) {
    const [p, q] = [a * 0xd2511f53n, c * 0xcd9e8d57n];
    [a, b, c, d] = [(q >> 32n) ^ b ^ k0, low(q), (p >> 32n) ^ d ^ k1, low(p)];
    [k0, k1] = [low(k0 + 0x9e3779b9n), low(k1 + 0xbb67ae85n)];
  }
  return [a, b, c, d].map(Number) as Words;
}

/** The words behind the first `n` elements drawn from `state`. */
function wordsOf(state: Int32Array, n: number): number[] {
  const [low, high, stream, offset] = new Uint32Array(state);
  const blocks = Array.from({ length: Math.ceil(n / 4) }, (_, i) => philox([i, 0, stream, offset], [low, high]));
  return blocks.flat().slice(0, n);
}

const states = [
  [0, 0, 0, 0],
  [-1, -1, -1, -1],
  [42, 7, 3, 1000],
].map((s) => Int32Array.from(s));

const device = await openDevice('cpu');
test.after(() => device.dispose());

async function draw(state: Int32Array, n: number, kind: 'uniform' | 'normal', on = device): Promise<Float32Array> {
  const leaf = input('state', [4], 'i32');
  const y = kind === 'uniform' ? randomUniform(leaf, [n]) : randomNormal(leaf, [n]);
  return (await evaluate(on, { y }, { state })).y as Float32Array;
}

test('the second implementation gives the published vectors', () => {
  const ones = 0xffffffff;
  assert.equal(philox([0, 0, 0, 0], [0, 0]), [0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8]);
  assert.equal(philox([ones, ones, ones, ones], [ones, ones]), [0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd]);
  assert.equal(
    philox([0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344], [0xa4093822, 0x299f31d0]),
    [0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1],
  );
});

test('uniforms are the upper 24 bits of the words', async () => {
  for (const state of states) {
    const expected = Float32Array.from(wordsOf(state, 1003), (word) => (word >>> 8) / 2 ** 24);
    sameBits(await draw(state, 1003, 'uniform'), expected, `state ${state}`);
  }
});

test('normals are Box-Muller on pairs of words', async () => {
  for (const state of states) {
    const words = wordsOf(state, 1004);
    const expected = words.map((_, i) => {
      const radius = Math.sqrt(-2 * Math.log(((words[i & ~1] >>> 8) + 1) / 2 ** 24));
      const angle = 2 * Math.PI * ((words[i | 1] >>> 8) / 2 ** 24);
      return radius * (i % 2 ? Math.sin(angle) : Math.cos(angle));
    });
    close(await draw(state, 1003, 'normal'), expected.slice(0, 1003), 3e-7, `state ${state}`);
  }
});

test('normals have the moments of the normal distribution', async () => {
  const n = 1_000_000;
  const y = await draw(Int32Array.of(1, 2, 3, 4), n, 'normal');
  const moment = (k: number): number => y.reduce((sum, v) => sum + v ** k, 0) / n;
  // Five standard errors of each sample moment: their variances are 1, 2, 15 and 96 over n.
  const expected: [number, number, number][] = [
    [1, 0, 1],
    [2, 1, 2],
    [3, 0, 15],
    [4, 3, 96],
  ];
  for (const [k, value, variance] of expected) {
    assert.ok(Math.abs(moment(k) - value) < 5 * Math.sqrt(variance / n), `moment ${k} is ${moment(k)}`);
  }
  const neighbours = y.reduce((sum, v, i) => sum + v * y[(i + 1) % n], 0) / n;
  assert.ok(Math.abs(neighbours) < 5 / Math.sqrt(n), `neighbours correlate by ${neighbours}`);
});

test('the bits do not depend on the number of threads', async () => {
  using alone = await openDevice('cpu', { threads: 1 });
  for (const kind of ['uniform', 'normal'] as const) {
    sameBits(await draw(states[2], 100_001, kind, alone), await draw(states[2], 100_001, kind), kind);
  }
});

test.run();
