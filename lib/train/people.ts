import { Draws } from '../data/draws.ts';
import { ReflError } from '../errors.ts';

/** People in an order that depends on the seed and their names alone, so that one more changes nobody else's lot. */
function drawn(people: Iterable<string>, seed: number): string[] {
  const lots = new Map([...new Set(people)].map((name) => [name, new Draws(seed, ...Buffer.from(name)).uniform()]));
  return [...lots.keys()].sort((a, b) => lots.get(a)! - lots.get(b)! || (a < b ? -1 : 1));
}

/**
 * Draws the part `share` of the people, at least one of them where `share` is above 0. Throws ERR_OPTION where nobody would
 * be left.
 */
export function holdOut(people: Iterable<string>, share: number, seed: number): Set<string> {
  if (!(share >= 0 && share < 1)) throw new ReflError('ERR_OPTION', `holdout must be from 0 to below 1, got ${share}`);
  const order = drawn(people, seed);
  const count = share && Math.max(1, Math.round(share * order.length));
  if (count && count >= order.length) {
    throw new ReflError('ERR_OPTION', `there are choices about ${order.length} people: too few to hold any out`);
  }
  return new Set(order.slice(0, count));
}

/**
 * The fold of each item, 0 to `folds` - 1: all of a person's lie in one, and folds are about as large as one another. Throws
 * ERR_OPTION where there are fewer people than folds.
 */
export function foldsOf(people: readonly string[], folds: number, seed: number): number[] {
  if (!(Number.isInteger(folds) && folds >= 2)) {
    throw new ReflError('ERR_OPTION', `folds must be a whole number of at least 2, got ${folds}`);
  }
  const sizes = new Map<string, number>();
  for (const person of people) sizes.set(person, (sizes.get(person) ?? 0) + 1);
  if (sizes.size < folds) {
    throw new ReflError('ERR_OPTION', `${folds} folds need as many people, there are ${sizes.size}: ask for fewer`);
  }
  const filled = new Array<number>(folds).fill(0);
  const foldOf = new Map<string, number>();
  // The largest first: what is left evens the folds out.
  const order = drawn(people, seed).sort((a, b) => sizes.get(b)! - sizes.get(a)!);
  for (const person of order) {
    const fold = filled.indexOf(Math.min(...filled));
    foldOf.set(person, fold);
    filled[fold] += sizes.get(person)!;
  }
  return people.map((person) => foldOf.get(person)!);
}
