// Calls every function of the addon with arguments of every wrong kind: each must throw or reject, or do nothing.
import { native } from '../../../lib/runtime/index.ts';
import { random } from '../../support/random.ts';

await native().openDevice('null', 1, '', false).opened; // handle 1, which true is taken for
const { device, opened } = native().openDevice('cpu', 1, '', false);
await opened;
const buffer = native().createBuffer(device, 'f32', [2], false);
const odd = [
  undefined,
  null,
  true,
  -1,
  0,
  NaN,
  1e300,
  '',
  'cpu',
  'f32',
  [],
  [1e300],
  [2 ** 40, 2 ** 40],
  {},
  () => 1,
  Symbol('s'),
  10n,
];
const values = [
  ...odd,
  device,
  buffer,
  new Float32Array(2),
  new Uint8Array(0),
  new DataView(new ArrayBuffer(8)),
  new Proxy({}, {}),
];
const { pick, int } = random(3);
const functions = Object.entries(native()) as [string, (...args: unknown[]) => unknown][];

for (const [name, fn] of functions) {
  for (let i = 0; i < 300; i++) {
    // Closing the good device, or freeing the good buffer, would leave the rest with nothing to misuse.
    const args = Array.from({ length: int(0, 6) }, () => pick(values)).map((v, k) =>
      k === 0 && ['closeDevice', 'release'].includes(name) && (v === device || v === buffer) ? -1 : v,
    );
    try {
      const result = fn(...args) as { promise?: unknown; opened?: unknown } | undefined;
      await (result?.promise ?? result?.opened ?? result);
    } catch (error) {
      if (!(error instanceof Error)) throw new Error(`${name} threw ${String(error)}`);
    }
  }
}
await native().writeBuffer(device, buffer, Float32Array.of(1, 2));
const read = new Float32Array(await native().readBuffer(device, buffer));
if (read[1] !== 2) throw new Error('the addon no longer works');
