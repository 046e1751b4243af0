// Spoils a valid program at random, a few hundred times, and compiles and runs what is left. On the null device anything
// may be spoiled; on the CPU only what verification answers for (native/exec/program.h), since a kernel trusts that the
// shapes and attributes of its node fit each other.
import type { TypedArray } from '../../../lib/graph/dtype.ts';
import type { ProgramSpec } from '../../../lib/graph/program.ts';
import { native } from '../../../lib/runtime/index.ts';
import { random } from '../../support/random.ts';
import { buffersOf, smallSpec } from '../../support/spec.ts';

const valid = { ...smallSpec(), persistent: [] };
const { pick, int, next } = random(7);
const junk = [
  NaN,
  Infinity,
  -Infinity,
  -0,
  -1,
  -2,
  0.5,
  1e300,
  -1e300,
  2 ** 31,
  2 ** 32,
  2 ** 53,
  2 ** 62,
  2 ** 63,
  2 ** 64,
];
const odd = [
  undefined,
  null,
  true,
  '',
  'f32',
  'matmul',
  [],
  {},
  [1, 2, 3],
  () => 1,
  Symbol('s'),
  10n,
  ...junk,
  0,
  1,
  2,
  3,
  64,
  128,
  4096,
];

type Place = { holder: Record<string | number, unknown>; key: string | number; path: string };

/** Every number, text, list and object inside a program, with the path of names that leads to it. */
function places(holder: Record<string | number, unknown>, path = ''): Place[] {
  return Object.keys(holder).flatMap((key) => {
    const at = `${path}/${Number.isNaN(Number(key)) ? key : '*'}`;
    const value = holder[key];
    const here = { holder, key, path: at };
    return typeof value === 'object' && value ? [here, ...places(value as Record<string, unknown>, at)] : [here];
  });
}

const inBounds =
  /^\/(tensors\/\*\/(offset|slot)|arenaBytes|firstUpdate|segments(\/\*)?|nodes\/\*\/op|(feeds|outputs|taps)\/\*\/tensor|taps\/\*\/before)$/;

function spoil(anything: boolean): ProgramSpec {
  const spec = structuredClone(valid) as unknown as Record<string, unknown>;
  for (let i = int(1, 3); i > 0; i--) {
    const all = places(spec).filter(({ path }) => anything || inBounds.test(path));
    if (!all.length) break;
    const { holder, key, path } = pick(all);
    if (!anything && path.endsWith('/op')) holder[key] = 'unknown';
    else if (!anything)
      holder[key] = path.endsWith('segments')
        ? pick([[], [0], [0, 1], [1], [0, 0]])
        : pick([...junk, 0, 1, 2, 3, 64, 128, 192, 256]);
    else if (next() < 0.2 && Array.isArray(holder)) holder.splice(Number(key), 1);
    else if (next() < 0.2) delete holder[key];
    else holder[key] = pick(odd);
  }
  return spec as unknown as ProgramSpec;
}

const lengths: Record<string, number> = { x: 32, one: 1 };
const feedsOf = (spec: ProgramSpec): TypedArray[] => spec.feeds.map(({ name }) => new Float32Array(lengths[name] ?? 0));

let refused = 0;
let ran = 0;
for (const [kind, rounds] of [
  ['null', 600],
  ['cpu', 600],
] as const) {
  const { device, opened } = native().openDevice(kind, 2, '', false);
  await opened;
  const buffers = buffersOf(device, smallSpec());
  for (let i = 0; i < rounds; i++) {
    const spec = spoil(kind === 'null');
    try {
      const { program } = await native().compile(device, spec, buffers);
      await native().run(device, program, feedsOf(spec), undefined, () => {}).promise;
      native().release(program);
      ran++;
    } catch (error) {
      if (!(error instanceof Error)) throw new Error(`threw ${String(error)}`);
      refused++;
    }
  }
  native().closeDevice(device);
}
if (refused < 300 || ran < 20)
  throw new Error(`${refused} refused, ${ran} ran: the corruptions are too tame or too wild`);
