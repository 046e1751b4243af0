import { bytesOf, isHalf } from './dtype.ts';
import { reachable } from './grad.ts';
import { broadcastShape } from './ops/elementwise.ts';
import './ops/chain.ts';
import type { Graph } from './program.ts';
import { opTable } from './table.ts';
import { asLayer, cloneNode, emit1, type Node, sameShape, type Tensor } from './tensor.ts';

/** What native code's stack machine holds: native/cpu/chain.cc and cuda/chain/chain.h have the same limits. */
const MOST = { steps: 24, inputs: 6, numbers: 12, depth: 4 };

/** How much more than its result may live longer for an operator that joins: a bias or a scale beside the one large tensor. */
const SLACK = 1.25;

const places = Object.keys(opTable);

/** A tree of elementwise operators: its leaves are tensors that are read, and numbers. */
type Expression = Tensor | number | Applied;

interface Applied {
  readonly node: Node;
  readonly args: readonly Expression[];
}

const isApplied = (e: Expression): e is Applied => typeof e === 'object' && 'args' in e;

/**
 * The graph with trees of elementwise operators made single `chain` nodes, which read every tensor once and keep what is
 * between in registers. An operator joins the one that reads its result where nobody else does, where both have one shape,
 * and where what has to live longer for it is hardly larger than the result that need not live at all. Numbers
 * become part of the code, casts happen as values are read and written. In float32 and float64 on the CPU results are the
 * same bits; in 16 bits intermediate values are not rounded. A pure function: `graph` stays as it is.
 */
export function fuse(graph: Graph): Graph {
  const updates = graph.updates ?? [];
  const kept = new Set([...Object.values(graph.outputs), ...Object.values(graph.taps ?? {})]);
  const read = updates.flatMap((node) => node.inputs.filter((t): t is Tensor => !!t));
  const writers = new Set(updates);
  const nodes = reachable([...kept, ...read]).filter((node) => !writers.has(node));
  const { expressions, absorbed } = new Fusion(nodes, new Set([...kept, ...read]));

  const made = new Map<Tensor, Tensor>();
  const now = (t: Tensor): Tensor => made.get(t) ?? t;
  const again = (node: Node): Node => {
    const copy = cloneNode(
      node,
      node.inputs.map((t) => t && now(t)),
    );
    node.outputs.forEach((t, i) => {
      made.set(t, copy.outputs[i]);
    });
    return copy;
  };
  // All are made anew, so that the order of creation stays the order of execution.
  for (const node of nodes) {
    if (node.leaf || absorbed.has(node)) continue;
    const e = expressions.get(node);
    if (!e?.args.some((arg) => typeof arg === 'number' || isApplied(arg))) {
      again(node);
      continue;
    }
    const { code, numbers, inputs } = encode(e);
    const y = asLayer(node.layer, () =>
      emit1('chain', inputs.map(now), { code, numbers, dtype: node.outputs[0].dtype }),
    );
    made.set(node.outputs[0], y);
  }
  const renamed = (tensors: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
    Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, now(t)]));
  return {
    outputs: renamed(graph.outputs),
    updates: updates.map(again),
    ...(graph.taps ? { taps: renamed(graph.taps) } : {}),
  };
}

/** Decides which nodes join which. */
class Fusion {
  /** Of every node that could be in a chain: the tree that computes it. */
  readonly expressions = new Map<Node, Applied>();
  /** Nodes that became part of a later one's tree. */
  readonly absorbed = new Set<Node>();
  private readonly nodes: readonly Node[];
  private readonly kept: ReadonlySet<Tensor>;
  private readonly step = new Map<Node, number>();
  private readonly readers = new Map<Tensor, Node[]>();

  constructor(nodes: readonly Node[], kept: ReadonlySet<Tensor>) {
    this.nodes = nodes;
    this.kept = kept;
    nodes.forEach((node, i) => {
      this.step.set(node, i);
      for (const t of node.inputs) {
        if (t && !this.readers.get(t)?.push(node)) this.readers.set(t, [node]);
      }
    });
    for (const node of nodes) if (isStep(node)) this.addTree(node);
  }

  private addTree(node: Node): void {
    const args: Expression[] = node.inputs.map((t) => t!);
    // The latest first: what lies between it and this node is then known to have joined.
    const order = args.map((_, i) => i).sort((a, b) => this.stepOf(node.inputs[b]!) - this.stepOf(node.inputs[a]!));
    for (const i of order) {
      const t = node.inputs[i]!;
      const inlined = this.inlined(t, node);
      if (inlined === undefined) continue;
      const tried = args.with(i, inlined);
      if (!fits({ node, args: tried })) continue;
      args[i] = inlined;
      if (this.readers.get(t)!.length === 1 && !this.kept.has(t)) this.absorbed.add(t.node);
    }
    this.expressions.set(node, { node, args });
  }

  private stepOf(t: Tensor): number {
    return this.step.get(t.node)!;
  }

  /** What may stand in `node`'s tree for reading `t`. */
  private inlined(t: Tensor, node: Node): number | Applied | undefined {
    const producer = t.node;
    if (producer.op === 'full') return node.op === 'cast' ? undefined : (producer.attrs.value as number);
    const e = this.expressions.get(producer);
    if (!e || this.kept.has(t) || this.readers.get(t)!.length > 1) return undefined;
    if (!sameShape(t.shape, node.outputs[0].shape)) return undefined;
    // Casts round where a chain reads or writes: a cast of 16-bit arithmetic would show that it was not rounded.
    const casts = [node, producer].filter(({ op }) => op === 'cast').length;
    if (casts === 2 || (casts === 1 && isHalf(t.dtype))) return undefined;
    return this.isNear(producer, node) || this.longerLives(e, node) <= SLACK * bytes(t) ? e : undefined;
  }

  /** Whether all nodes from `producer` to `node` are in one tree. */
  private isNear(producer: Node, node: Node): boolean {
    const between = this.nodes.slice(this.step.get(producer)! + 1, this.step.get(node)!);
    return between.every((it) => this.absorbed.has(it) || it.leaf || it.op === 'full');
  }

  /** Bytes of what `e` reads and nobody reads from `node` on. */
  private longerLives(e: Applied, node: Node): number {
    const end = this.step.get(node)!;
    const dies = (t: Tensor): boolean =>
      !persistent(t) && !this.kept.has(t) && this.readers.get(t)!.every((reader) => this.step.get(reader)! < end);
    return tensorsOf(e)
      .filter(dies)
      .reduce((sum, t) => sum + bytes(t), 0);
  }
}

/** Whether a node can be a step of a chain: a cast is where it is between floats. */
function isStep({ op, inputs, outputs }: Node): boolean {
  const between = [inputs[0], outputs[0]];
  return opTable[op].chains || (op === 'cast' && between.every((t) => t?.dtype === 'f32' || (t && isHalf(t.dtype))));
}

const persistent = ({ node: { leaf } }: Tensor): boolean => leaf !== undefined && leaf.kind !== 'input';

const bytes = (t: Tensor): number => t.size * bytesOf(t.dtype);

const leaves = (e: Expression): (Tensor | number)[] => (isApplied(e) ? e.args.flatMap(leaves) : [e]);

const tensorsOf = (e: Expression): Tensor[] => [...new Set(leaves(e).filter((leaf) => typeof leaf !== 'number'))];

/** The most values that are on the stack at once. */
function depth(e: Expression): number {
  return isApplied(e) ? Math.max(...e.args.map((arg, i) => i + depth(arg))) : 1;
}

/** Whether native code can run a tree, and would give it the shape that it has. */
function fits(e: Applied): boolean {
  const { code, numbers, inputs } = encode(e);
  const halves = new Set([...inputs, e.node.outputs[0]].map((t) => t.dtype).filter(isHalf));
  return (
    inputs.length > 0 &&
    inputs.length <= MOST.inputs &&
    numbers.length <= MOST.numbers &&
    code.length / 2 <= MOST.steps &&
    depth(e) <= MOST.depth &&
    halves.size <= 1 &&
    sameShape(inputs.map(({ shape }) => shape).reduce(broadcastShape), e.node.outputs[0].shape)
  );
}

/** A tree as the attributes and inputs of a `chain` (ops/chain.ts). */
function encode(tree: Applied): { code: number[]; numbers: number[]; inputs: Tensor[] } {
  const inputs = tensorsOf(tree);
  const code: number[] = [];
  const numbers: number[] = [];
  const step = (op: string, argument: number): void => {
    code.push(places.indexOf(op), argument);
  };
  const visit = (e: Expression): void => {
    if (typeof e === 'number') {
      step('full', numbers.push(e) - 1);
    } else if (!isApplied(e)) {
      step('input', inputs.indexOf(e));
    } else {
      e.args.forEach(visit);
      if (e.node.op === 'cast') return;
      step(e.node.op, numbers.length);
      numbers.push(...Object.keys(opTable[e.node.op].attrs).map((name) => Number(e.node.attrs[name])));
    }
  };
  visit(tree);
  return { code, numbers, inputs };
}
