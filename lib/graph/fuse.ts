import { isHalf } from './dtype.ts';
import { finishProducts } from './epilogue.ts';
import { broadcastShape } from './ops/elementwise.ts';
import './ops/chain.ts';
import type { Graph } from './program.ts';
import { opTable } from './table.ts';
import { asLayer, emit1, type Node, sameShape, type Tensor } from './tensor.ts';
import { rebuilt, Usage } from './usage.ts';

/** What native code's stack machine holds: native/cpu/chain.cc and cuda/chain/chain.h have the same limits. */
const MOST = { steps: 24, inputs: 6, numbers: 12, depth: 4 };

const places = Object.keys(opTable);

/** A tree of elementwise operators: its leaves are tensors that are read, and numbers. */
type Expression = Tensor | number | Applied;

interface Applied {
  readonly node: Node;
  readonly args: readonly Expression[];
}

const isApplied = (e: Expression): e is Applied => typeof e === 'object' && 'args' in e;

/**
 * The graph as devices run it: products finish their results ({@link finishProducts}), and trees of the elementwise operators
 * that are left become chains. Results are the bits of the graph as traced, in 16 bits too: which operators could join is
 * nothing that a caller should see in the numbers.
 */
export const fuse = (graph: Graph): Graph => joinChains(finishProducts(graph));

/**
 * The graph with trees of elementwise operators made single `chain` nodes, which read every tensor once and keep what is
 * between in registers. An operator joins the one that reads its result where nobody else does, where both have one shape,
 * and where what has to live longer for it is hardly larger than the result that need not live at all. Numbers
 * become part of the code, casts happen as values are read and written. A pure function: `graph` stays as it is.
 */
function joinChains(graph: Graph): Graph {
  const usage = new Usage(graph);
  const expressions = treesOf(usage);
  return rebuilt(graph, usage, (node, now) => {
    const e = expressions.get(node);
    if (!e?.args.some((arg) => typeof arg === 'number' || isApplied(arg))) return undefined;
    const { code, numbers, inputs } = encode(e);
    const [y] = node.outputs;
    // A cast at the end is of float32: see inlined().
    const attrs = { code, numbers, dtype: y.dtype, rounds: node.op !== 'cast' && isHalf(y.dtype) };
    return [y, asLayer(node.layer, () => emit1('chain', inputs.map(now), attrs))];
  });
}

/** Of every node that could be in a chain, the tree that computes it; marks those that are part of a later one's as absorbed. */
function treesOf(usage: Usage): Map<Node, Applied> {
  const trees = new Map<Node, Applied>();
  for (const node of usage.nodes) {
    if (!isStep(node)) continue;
    const args: Expression[] = node.inputs.map((t) => t!);
    // The latest first: what lies between it and this node is then known to have joined.
    const order = args.map((_, i) => i).sort((a, b) => usage.stepOf(node.inputs[b]!) - usage.stepOf(node.inputs[a]!));
    for (const i of order) {
      const t = node.inputs[i]!;
      const part = inlined(t, node, usage, trees);
      if (part === undefined) continue;
      const tried = args.with(i, part);
      if (!fits({ node, args: tried })) continue;
      args[i] = part;
      if (usage.soleReader(t)) usage.absorbed.add(t.node);
    }
    trees.set(node, { node, args });
  }
  return trees;
}

/** What may stand in `node`'s tree for reading `t`. */
function inlined(t: Tensor, node: Node, usage: Usage, trees: ReadonlyMap<Node, Applied>): number | Applied | undefined {
  const producer = t.node;
  if (producer.op === 'full') return node.op === 'cast' ? undefined : (producer.attrs.value as number);
  const e = trees.get(producer);
  if (!e || !usage.soleReader(t)) return undefined;
  if (!sameShape(t.shape, node.outputs[0].shape)) return undefined;
  // A chain computes in one dtype, and casts as it reads and writes.
  const casts = [node, producer].filter(({ op }) => op === 'cast').length;
  if (casts === 2 || (casts === 1 && isHalf(t.dtype))) return undefined;
  return usage.mayWait(t, tensorsOf(e), node) ? e : undefined;
}

/** Whether a node can be a step of a chain: a cast is where it is between floats. */
function isStep({ op, inputs, outputs }: Node): boolean {
  const between = [inputs[0], outputs[0]];
  return opTable[op].chains || (op === 'cast' && between.every((t) => t?.dtype === 'f32' || (t && isHalf(t.dtype))));
}

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
