import { ReflError } from '../errors.ts';
import { bytesOf, type DType, type TypedArray } from './dtype.ts';
import { reachable } from './grad.ts';
import { type Lifetime, planArena, spreadArena } from './planner.ts';
import { encodeAttr, inputName, opTable } from './table.ts';
import type { Node, Shape, Tensor } from './tensor.ts';

/** What to compute. */
export interface Graph {
  /** Named results. A parameter among them (or a reshaped one) is read after the updates; all else is computed before. */
  readonly outputs: Readonly<Record<string, Tensor>>;
  /** Nodes that write parameters: they run last, in the order given, each seeing what those before it wrote. */
  readonly updates?: readonly Node[];
  /**
   * Named tensors on the way to the results (a preview, say) that a run can hand out as soon as they are computed. Nodes
   * run in the order in which they were traced, so what a tap needs beyond the rest is best traced early.
   */
  readonly taps?: Readonly<Record<string, Tensor>>;
}

/** Where the bytes of a tensor lie: in the program's arena, or in persistent buffer number `slot`. */
export interface TensorSpec {
  readonly dtype: DType;
  readonly shape: Shape;
  /** Byte offset in the arena, or -1 for a persistent tensor. */
  readonly offset: number;
  /** Index into the persistent buffers, or -1 for an arena tensor. */
  readonly slot: number;
}

export interface NodeSpec {
  readonly op: string;
  readonly layer: string;
  /** Indices into `tensors`; -1 where an optional input was left out. */
  readonly inputs: readonly number[];
  readonly outputs: readonly number[];
  /** Attribute values in the order of ops.json. */
  readonly attrs: readonly (readonly number[])[];
}

/** A flat program: all that native code is told. It verifies every index and offset before it runs. */
export interface ProgramSpec {
  readonly tensors: readonly TensorSpec[];
  readonly nodes: readonly NodeSpec[];
  readonly arenaBytes: number;
  readonly feeds: readonly { readonly name: string; readonly tensor: number }[];
  readonly outputs: readonly { readonly name: string; readonly tensor: number }[];
  /** Handed out before node `before` runs, in this order. */
  readonly taps: readonly { readonly name: string; readonly tensor: number; readonly before: number }[];
  /** First node of every segment; abort, progress and taps act between segments. */
  readonly segments: readonly number[];
  /** Nodes from this index on write parameters: once begun, they run to the end. */
  readonly firstUpdate: number;
  /** Leaves behind the persistent slots, in slot order: parameters, and constants with their bytes. */
  readonly persistent: readonly Persistent[];
}

export interface Persistent {
  readonly tensor: Tensor;
  /** The values of a constant; undefined for a parameter. */
  readonly data: TypedArray | undefined;
}

export interface LowerOptions {
  /**
   * False gives every tensor bytes of its own, and a device then runs the nodes as they were traced: the oracle that
   * planned and fused runs are compared with. Default true.
   */
  readonly plan?: boolean;
}

/** Where a layer has more than this, it is cut: of small nodes the count keeps a segment near 10 ms, of large ones the bytes. */
const SEGMENT_NODES = 16;
const SEGMENT_BYTES = 2 ** 24;

/** Orders a graph's nodes, lays out its memory and writes it as a flat program. A pure function. */
export function lower(graph: Graph, { plan = true }: LowerOptions = {}): ProgramSpec {
  const updates = graph.updates ?? [];
  const taps = Object.entries(graph.taps ?? {});
  const results = [...Object.values(graph.outputs), ...taps.map(([, t]) => t)];
  const needed = updates.flatMap((node) => node.inputs.filter((t): t is Tensor => !!t));
  const writers = new Set(updates);
  const steps = reachable([...results, ...needed]).filter((node) => !writers.has(node));
  const leaves = steps.filter((node) => node.leaf);
  const nodes = [...steps.filter((node) => !node.leaf), ...updates];
  updates.forEach(checkWrites);

  const storage = new Storage(nodes, leaves, graph, plan);
  const ids = new Map<Tensor, number>();
  const tensors: TensorSpec[] = [];
  const idOf = (t: Tensor): number => {
    let id = ids.get(t);
    if (id === undefined) {
      id = tensors.length;
      ids.set(t, id);
      tensors.push({ dtype: t.dtype, shape: t.shape, ...storage.of(t) });
    }
    return id;
  };
  const run = nodes.filter((node) => !opTable[node.op].view);
  const tapped = taps
    .map(([name, t]) => ({ name, tensor: idOf(t), before: afterTap(name, t, nodes) }))
    .sort((a, b) => a.before - b.before);
  const names = new Set<string>();
  return {
    feeds: leaves.flatMap(({ leaf, outputs }) => {
      if (leaf?.kind !== 'input') return [];
      if (names.has(leaf.name)) throw new ReflError('ERR_GRAPH', `two inputs are named ${leaf.name}`);
      names.add(leaf.name);
      return [{ name: leaf.name, tensor: idOf(outputs[0]) }];
    }),
    nodes: run.map((node) => ({
      op: node.op,
      layer: node.layer,
      inputs: node.inputs.map((t) => (t ? idOf(t) : -1)),
      outputs: node.outputs.map(idOf),
      attrs: Object.entries(opTable[node.op].attrs).map(([name, kind]) => encodeAttr(kind, node.attrs[name])),
    })),
    outputs: Object.entries(graph.outputs).map(([name, t]) => ({ name, tensor: idOf(t) })),
    taps: tapped,
    tensors,
    arenaBytes: storage.bytes,
    segments: segmentStarts(run, run.length - updates.length, new Set(tapped.map(({ before }) => before))),
    firstUpdate: run.length - updates.length,
    persistent: storage.persistent,
  };
}

/** An update may write parameters only: a write into the arena could destroy a value that is still read. */
function checkWrites(node: Node): void {
  const row = opTable[node.op];
  if (!row.writes) throw new ReflError('ERR_GRAPH', `${node.op} writes no parameter: it cannot be an update`);
  const group = row.group ?? [];
  const written = row.writes.map((name) => group.indexOf(name));
  node.inputs.slice(row.inputs.length).forEach((t, i) => {
    if (written.includes(i % group.length) && t?.node.leaf?.kind !== 'parameter') {
      throw new ReflError('ERR_GRAPH', `${node.op} must write a parameter, got ${t}`);
    }
  });
}

/** The node that runs next after a tap was computed. It begins a segment, so nothing has overwritten the tap by then. */
function afterTap(name: string, t: Tensor, nodes: readonly Node[]): number {
  if (t.node.leaf) throw new ReflError('ERR_GRAPH', `the tap ${name} is ${t}, which no program computes`);
  return nodes.slice(0, nodes.indexOf(t.node) + 1).filter((node) => !opTable[node.op].view).length;
}

function segmentStarts(nodes: readonly Node[], firstUpdate: number, cuts: ReadonlySet<number>): number[] {
  const starts: number[] = [];
  let bytes = 0;
  nodes.slice(0, firstUpdate).forEach((node, i) => {
    const full = i - starts.at(-1)! >= SEGMENT_NODES || bytes >= SEGMENT_BYTES;
    if (i === 0 || full || cuts.has(i) || node.layer !== nodes[i - 1].layer) {
      starts.push(i);
      bytes = 0;
    }
    for (const t of [...node.inputs, ...node.outputs]) bytes += t ? t.size * bytesOf(t.dtype) : 0;
  });
  if (firstUpdate < nodes.length) starts.push(firstUpdate);
  return starts;
}

/** Decides where every tensor's bytes lie: lifetimes of arena blocks, in-place reuse, views, persistent slots. */
class Storage {
  readonly persistent: Persistent[] = [];
  readonly bytes: number;
  private readonly slots = new Map<Tensor, number>();
  /** The block that each arena tensor lives in: views and in-place results share their input's. */
  private readonly blocks = new Map<Tensor, number>();
  private readonly lives: { bytes: number; first: number; last: number }[] = [];
  private readonly offsets: readonly number[];

  constructor(nodes: readonly Node[], leaves: readonly Node[], graph: Graph, plan: boolean) {
    for (const node of leaves) this.addLeaf(node);
    const lastRead = lastReads(nodes, graph);
    for (const node of leaves) this.extend(node.outputs[0], lastRead.get(node.outputs[0]) ?? 0);
    nodes.forEach((node, step) => {
      node.outputs.forEach((t, i) => {
        const host = i === 0 ? this.hostOf(node, step, plan) : undefined;
        if (host !== undefined) this.blocks.set(t, host);
        else if (!this.viewOfSlot(node, t)) this.addBlock(t, step);
        this.extend(t, lastRead.get(t) ?? step);
      });
    });
    const layout = (plan ? planArena : spreadArena)(this.lives satisfies Lifetime[]);
    this.offsets = layout.offsets;
    this.bytes = layout.bytes;
  }

  of(t: Tensor): { offset: number; slot: number } {
    const slot = this.slots.get(t);
    return slot === undefined ? { offset: this.offsets[this.blocks.get(t)!], slot: -1 } : { offset: -1, slot };
  }

  private addLeaf(node: Node): void {
    const t = node.outputs[0];
    if (node.leaf!.kind === 'input') {
      this.addBlock(t, 0);
      return;
    }
    this.slots.set(t, this.persistent.length);
    this.persistent.push({ tensor: t, data: node.leaf!.kind === 'constant' ? node.leaf!.data : undefined });
  }

  private addBlock(t: Tensor, step: number): void {
    this.blocks.set(t, this.lives.length);
    this.lives.push({ bytes: t.size * bytesOf(t.dtype), first: step, last: step });
  }

  private extend(t: Tensor, step: number): void {
    const block = this.blocks.get(t);
    if (block !== undefined) this.lives[block].last = Math.max(this.lives[block].last, step);
  }

  /** A view of a parameter or constant shares its slot. */
  private viewOfSlot(node: Node, t: Tensor): boolean {
    const slot = opTable[node.op].view ? this.slots.get(node.inputs[0]!) : undefined;
    if (slot !== undefined) this.slots.set(t, slot);
    return slot !== undefined;
  }

  /** The block that output 0 takes over: a view's, or an input's that dies at this step and has the same bytes. */
  private hostOf(node: Node, step: number, plan: boolean): number | undefined {
    const row = opTable[node.op];
    if (row.view) return this.blocks.get(node.inputs[0]!);
    const [y] = node.outputs;
    if (!plan || !row.inplace) return undefined;
    for (const [i, x] of node.inputs.entries()) {
      const block = x && row.inplace.includes(inputName(row, i)) ? this.blocks.get(x) : undefined;
      if (!x || block === undefined || x.dtype !== y.dtype || x.size !== y.size) continue;
      // The block lives as long as the longest of x and its views: those were made before x's last read, thus by now.
      const dies = this.lives[block].last <= step;
      // A tensor that this node reads twice, or through a view as well, must not be overwritten under the other read.
      const readOnce = node.inputs.filter((t) => t && this.blocks.get(t) === block).length === 1;
      if (dies && readOnce) return block;
    }
    return undefined;
  }
}

/** The last step that reads each tensor; program outputs are read after all of them. */
function lastReads(nodes: readonly Node[], graph: Graph): Map<Tensor, number> {
  const last = new Map<Tensor, number>();
  nodes.forEach((node, step) => {
    for (const t of node.inputs) if (t) last.set(t, step);
  });
  for (const t of Object.values(graph.outputs)) last.set(t, nodes.length);
  return last;
}
