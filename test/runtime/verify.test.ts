import { test } from 'uvu';
import * as assert from 'uvu/assert';
import type { ProgramSpec } from '../../lib/graph/program.ts';
import { opTable } from '../../lib/graph/table.ts';
import { native } from '../../lib/runtime/index.ts';
import { child, codeOf, ended } from '../support/runtime.ts';
import { buffersOf, smallSpec } from '../support/spec.ts';

type Loose = { [key: string]: Loose } & Loose[] & number;

const { device, opened } = native().openDevice('cpu', 2, '', false);
await opened;
const valid = smallSpec();
const buffers = buffersOf(device, valid);
const count = valid.tensors.length;

const compile = (spoil: (spec: Loose) => void): (() => Promise<unknown>) => {
  const spec = structuredClone({ ...valid, persistent: [] }) as unknown as Loose;
  spoil(spec);
  return async () => native().compile(device, spec as unknown as ProgramSpec, buffers);
};

const nodeOf = (op: string): number => valid.nodes.findIndex((node) => node.op === op);
const arena = valid.tensors.findIndex(({ slot }) => slot < 0);
const held = valid.tensors.findIndex(({ slot }) => slot >= 0);

test('the program that the following ones spoil is valid', async () => {
  const { program, transientBytes } = await native().compile(device, valid, buffers);
  assert.ok(transientBytes >= valid.arenaBytes);
  native().release(program);
});

const set = (value: unknown): Loose => value as Loose;

/** Has the first node, a product, do a step that reads `operand`. */
function follow(spec: Loose, [op, number]: [string, number], operand?: number): void {
  spec.nodes[0].attrs[2] = set([Object.keys(opTable).indexOf(op), number]);
  if (operand !== undefined) spec.nodes[0].inputs.push(set(operand));
}

const spoiled: Record<string, (spec: Loose) => void> = {
  'an offset behind the arena': (s) => (s.tensors[arena].offset = s.arenaBytes),
  'an offset that leaves the end outside': (s) => (s.tensors[arena].offset = set(s.arenaBytes - 64 + 64 * 64)),
  'an offset that is not aligned': (s) => (s.tensors[arena].offset = set(4)),
  'an offset that is no number': (s) => (s.tensors[arena].offset = set('0')),
  'an offset of NaN': (s) => (s.tensors[arena].offset = set(NaN)),
  'an offset with a fraction': (s) => (s.tensors[arena].offset = set(0.5)),
  'an offset of 1e300': (s) => (s.tensors[arena].offset = set(1e300)),
  'an infinite offset': (s) => (s.tensors[arena].offset = set(-Infinity)),
  'an unknown slot': (s) => (s.tensors[held].slot = set(99)),
  'both an offset and a slot': (s) => (s.tensors[arena].slot = set(99)),
  'both an offset and a known slot': (s) => (s.tensors[arena].slot = set(0)),
  'neither offset nor slot': (s) => (s.tensors[held].slot = set(-1)),
  'another dtype than the buffer has': (s) => (s.tensors[held].dtype = set('f64')),
  'another size than the buffer has': (s) => (s.tensors[held].shape = set([3])),
  'an unknown dtype': (s) => (s.tensors[arena].dtype = set('f8')),
  'an arena that is too small': (s) => (s.arenaBytes = set(64)),
  'a negative arena': (s) => (s.arenaBytes = set(-64)),
  'an arena of NaN': (s) => (s.arenaBytes = set(NaN)),
  'an unknown operator': (s) => (s.nodes[0].op = set('launchMissiles')),
  'a leaf in place of a kernel': (s) =>
    s.nodes.splice(0, 1, set({ op: 'input', layer: '', inputs: [], outputs: [arena], attrs: [] })),
  'too few inputs': (s) => s.nodes[0].inputs.pop(),
  'too many inputs': (s) => s.nodes[0].inputs.push(set(0)),
  'half a group': (s) => s.nodes[nodeOf('accumulate')].inputs.pop(),
  'too few outputs': (s) => s.nodes[nodeOf('layerNorm')].outputs.pop(),
  'too many outputs': (s) => s.nodes[0].outputs.push(set(0)),
  'too few attributes': (s) => s.nodes[nodeOf('layerNorm')].attrs.pop(),
  'an attribute without a value': (s) => (s.nodes[nodeOf('concat')].attrs[0] = set([])),
  'an attribute that should be whole': (s) => (s.nodes[nodeOf('concat')].attrs[0] = set([NaN])),
  'an attribute beyond any size': (s) => (s.nodes[nodeOf('concat')].attrs[0] = set([1e300])),
  'a step behind a product without its operand': (s) => follow(s, ['add', 0]),
  'a step behind a product that is none': (s) => follow(s, ['matmul', 0], 1),
  'a step behind a product without its numbers': (s) => follow(s, ['affine', 0]),
  'half a step behind a product': (s) => (s.nodes[0].attrs[2] = set([0])),
  'an operand of a product that has another size': (s) => follow(s, ['add', 0], held),
  'an input left out that is needed': (s) => (s.nodes[0].inputs[0] = set(-1)),
  'an unknown input': (s) => (s.nodes[0].inputs[0] = set(count)),
  'an unknown output': (s) => (s.nodes[0].outputs[0] = set(-1)),
  'a parameter as an output': (s) => (s.nodes[0].outputs[0] = set(held)),
  'an update that writes the arena': (s) => (s.nodes[nodeOf('accumulate')].inputs[1] = set(arena)),
  'an update before the updates': (s) => (s.firstUpdate = set(s.nodes.length)),
  'a computation among the updates': (s) => (s.firstUpdate = set(0)),
  'updates out of range': (s) => (s.firstUpdate = set(99)),
  'segments that begin late': (s) => s.segments.shift(),
  'segments out of order': (s) => s.segments.reverse(),
  'a segment behind the end': (s) => s.segments.push(s.nodes.length as Loose),
  'an unknown feed': (s) => (s.feeds[0].tensor = set(count)),
  'a feed into a parameter': (s) => (s.feeds[0].tensor = set(held)),
  'an unknown tap': (s) => (s.taps[0].tensor = set(count)),
  'a tap within a segment': (s) => (s.segments = set([0])),
  'a tap behind the end': (s) => (s.taps[0].before = set(s.nodes.length + 1)),
  'a tap among the updates': (s) => s.taps.push(set({ tensor: arena, before: s.nodes.length })),
  'taps out of order': (s) => s.taps.push(set({ tensor: arena, before: 0 })),
  'an unknown output port': (s) => (s.outputs[0].tensor = set(-1)),
  'no tensors': (s) => (s.tensors = set([])),
  'tensors that are no list': (s) => (s.tensors = set({ length: 3 })),
  'a length with nothing behind it': (s) => (s.segments = set(new Array(2 ** 32 - 1))),
  'no tensor list': (s) => Reflect.deleteProperty(s, 'tensors'),
  'no nodes': (s) => Reflect.deleteProperty(s, 'nodes'),
};

for (const [what, spoil] of Object.entries(spoiled)) {
  test(`a program is refused: ${what}`, async () => {
    assert.is(await codeOf(compile(spoil)), 'ERR_PROGRAM');
  });
}

test('extents that are negative or overflow are refused', async () => {
  for (const shape of [[-1], [-4, -8], [2 ** 40, 2 ** 40], [0, 2 ** 40, 2 ** 40], [2 ** 52, 2 ** 10]]) {
    assert.is(await codeOf(compile((s) => (s.tensors[arena].shape = set(shape)))), 'ERR_SHAPE');
  }
});

test('hundreds of random corruptions of a program are refused or run, and never crash', async () => {
  ended(await child('fuzz'));
});

test('arguments of the wrong kind throw, and never crash', async () => {
  ended(await child('misuse'));
});

test.run();
