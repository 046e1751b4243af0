// An independent reading of a lowered program: walks its nodes over a model of memory that records which tensor every range
// of the arena holds, and asserts that every read finds what was written for it. It shares no code with lib/graph/program.ts.
import * as assert from 'uvu/assert';
import type { Graph, ProgramSpec } from '../../lib/graph/program.ts';
import { opTable } from '../../lib/graph/table.ts';
import type { Node, Tensor } from '../../lib/graph/tensor.ts';

const ALIGNMENT = 128;
const widths = { f32: 4, f64: 8, bf16: 2, f16: 2, i32: 4, u8: 1 };

const bytesOf = (t: Tensor): number => t.shape.reduce((a, b) => a * b, 1) * widths[t.dtype];
const isView = (node: Node): boolean => opTable[node.op].view === true;

/** The tensor whose bytes `t` shows: itself, or what a chain of reshapes began with. */
const root = (t: Tensor): Tensor => (isView(t.node) ? root(t.node.inputs[0]!) : t);

/** The nodes that must run, in the order they were traced, updates last. */
function nodesOf({ outputs, updates = [], taps = {} }: Graph): Node[] {
  const found = new Set<Node>();
  const visit = (node: Node): void => {
    if (found.has(node)) return;
    found.add(node);
    for (const t of node.inputs) if (t) visit(t.node);
  };
  for (const t of [...Object.values(outputs), ...Object.values(taps)]) visit(t.node);
  for (const node of updates) visit(node);
  const computed = [...found].filter((node) => !node.leaf && !isView(node) && !updates.includes(node));
  return [...computed.sort((a, b) => a.id - b.id), ...updates];
}

interface Range {
  readonly begin: number;
  readonly end: number;
}

const overlap = (a: Range, b: Range): boolean => a.begin < b.end && b.begin < a.end;

class Memory {
  private readonly spec: ProgramSpec;
  private holds: (Range & { tensor: Tensor })[] = [];

  constructor(spec: ProgramSpec) {
    this.spec = spec;
  }

  /** The bytes of the arena in which `t` lies; none for a persistent or an empty tensor. */
  range(index: number, t: Tensor): Range {
    const { offset, slot } = this.spec.tensors[index];
    const bytes = bytesOf(t);
    if (slot >= 0 || bytes === 0) return { begin: 0, end: 0 };
    const inside = offset >= 0 && offset % ALIGNMENT === 0 && offset + bytes <= this.spec.arenaBytes;
    if (!inside) assert.unreachable(`${t} lies at ${offset} of an arena of ${this.spec.arenaBytes}`);
    return { begin: offset, end: offset + bytes };
  }

  /** `index` is declared as `t` is, and holds it: in the arena, or as the parameter or constant of its slot. */
  read(index: number, t: Tensor, who: string): void {
    const { dtype, shape, slot } = this.spec.tensors[index];
    assert.equal({ dtype, shape }, { dtype: t.dtype, shape: t.shape });
    if (slot >= 0) {
      assert.is(this.spec.persistent[slot].tensor, root(t), `${who} reads the wrong slot`);
      return;
    }
    assert.not(['parameter', 'constant'].includes(root(t).node.leaf?.kind ?? ''), `${who}: ${t} must be persistent`);
    const { begin, end } = this.range(index, t);
    const intact = begin === end || this.holds.some((r) => r.begin === begin && r.end === end && r.tensor === root(t));
    if (!intact) assert.unreachable(`${who} reads ${t}, whose bytes are gone`);
  }

  /** Whatever the bytes of `t` held before, in whole or in part, is gone. */
  write(index: number, t: Tensor): void {
    assert.is(this.spec.tensors[index].slot, -1, `${t} is written into a persistent buffer`);
    const range = this.range(index, t);
    this.holds = this.holds.filter((r) => !overlap(r, range));
    this.holds.push({ ...range, tensor: t });
  }
}

/** Outputs may lie on an input's bytes only where the operator's row allows it, and then wholly. */
function checkAliasing(memory: Memory, node: Node, inputs: readonly number[], outputs: readonly number[]): void {
  const row = opTable[node.op];
  const written = node.outputs.map((y, i) => memory.range(outputs[i], y));
  written.forEach((a, i) => {
    assert.not(
      written.some((b, k) => k < i && overlap(a, b)),
      `two outputs of ${node.op} share bytes`,
    );
  });
  let taken = 0;
  node.inputs.forEach((x, i) => {
    const range = x ? memory.range(inputs[i], x) : { begin: 0, end: 0 };
    if (!written.some((w) => overlap(w, range))) return;
    taken++;
    assert.ok(
      row.inplace?.includes(row.inputs[i] ?? row.group![0]),
      `${node.op} overwrites its input ${i} while it reads it`,
    );
    assert.equal(range, written[0], `${node.op} takes over a part of its input ${i}`);
  });
  assert.ok(taken <= 1, `${node.op} overwrites two inputs`);
}

/** Asserts that `spec` computes `graph`: same nodes in a valid order, and no read of bytes that were overwritten. */
export function simulate(graph: Graph, spec: ProgramSpec): void {
  const nodes = nodesOf(graph);
  assert.equal(
    spec.nodes.map(({ op }) => op),
    nodes.map(({ op }) => op),
  );
  const memory = new Memory(spec);
  const leaves = new Map<string, Tensor>();
  for (const node of [
    ...nodes,
    ...[graph.outputs, graph.taps ?? {}].flatMap((of) => Object.values(of)).map((t) => root(t).node),
  ]) {
    for (const t of [...node.inputs, ...node.outputs]) {
      const origin = t && root(t);
      if (origin?.node.leaf?.kind === 'input') leaves.set(origin.node.leaf.name, origin);
    }
  }
  assert.equal(spec.feeds.map(({ name }) => name).sort(), [...leaves.keys()].sort());
  for (const { name, tensor } of spec.feeds) memory.write(tensor, leaves.get(name)!);
  // Feeds are copied in one after another: the last must not have overwritten the first.
  for (const { name, tensor } of spec.feeds) memory.read(tensor, leaves.get(name)!, 'a feed');

  const taps = graph.taps ?? {};
  assert.equal(spec.taps.map(({ name }) => name).sort(), Object.keys(taps).sort());
  const handOut = (before: number): void => {
    for (const tap of spec.taps.filter((t) => t.before === before)) {
      assert.ok(before === nodes.length || spec.segments.includes(before), 'taps act between segments');
      memory.read(tap.tensor, taps[tap.name], `the tap ${tap.name}`);
    }
  };
  nodes.forEach((node, i) => {
    handOut(i);
    const { inputs, outputs } = spec.nodes[i];
    node.inputs.forEach((t, k) => {
      if (t) memory.read(inputs[k], t, `${node.op} (node ${i})`);
      else assert.is(inputs[k], -1);
    });
    checkAliasing(memory, node, inputs, outputs);
    node.outputs.forEach((t, k) => {
      memory.write(outputs[k], t);
    });
  });
  handOut(nodes.length);
  assert.equal(
    spec.outputs.map(({ name }) => name),
    Object.keys(graph.outputs),
  );
  for (const { name, tensor } of spec.outputs) memory.read(tensor, graph.outputs[name], `the output ${name}`);
}
