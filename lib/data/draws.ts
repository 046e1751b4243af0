/**
 * Numbers for choices made on the host (which crop, which degradation): a counter-based generator, so that draw number i
 * of item k depends on the seed, k and i alone, and resumed or parallel work repeats exactly. SplitMix64's finaliser
 * over a mixed key; noise in images comes from Philox on the device instead.
 */
export class Draws {
  #state: bigint;

  constructor(...key: readonly number[]) {
    this.#state = key.reduce((state, word) => mix(state ^ BigInt.asUintN(64, BigInt(word))), 0x243f6a8885a308d3n);
  }

  /** The next 32 random bits, as an unsigned number. */
  bits(): number {
    this.#state = BigInt.asUintN(64, this.#state + golden);
    return Number(mix(this.#state) >> 32n);
  }

  /** 64 random bits as a seed of noise on the device. */
  seed(): bigint {
    return BigInt.asIntN(64, (BigInt(this.bits()) << 32n) | BigInt(this.bits()));
  }

  /** Uniform in [low, high). */
  uniform(low = 0, high = 1): number {
    return low + (high - low) * (this.bits() / 2 ** 32);
  }

  /** A whole number in [0, count). */
  below(count: number): number {
    return Math.floor(this.uniform(0, count));
  }
}

const golden = 0x9e3779b97f4a7c15n;

function mix(x: bigint): bigint {
  let z = BigInt.asUintN(64, x + golden);
  z = BigInt.asUintN(64, (z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n);
  z = BigInt.asUintN(64, (z ^ (z >> 27n)) * 0x94d049bb133111ebn);
  return z ^ (z >> 31n);
}
