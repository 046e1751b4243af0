import { bytesOf } from './dtype.ts';
import { reachable } from './grad.ts';
import type { Graph } from './program.ts';
import { cloneNode, type Node, type Tensor } from './tensor.ts';

/** How much more than its result may live longer for an operator that joins: a bias or a scale beside the one large tensor. */
const SLACK = 1.25;

const persistent = ({ node: { leaf } }: Tensor): boolean => leaf !== undefined && leaf.kind !== 'input';

const bytes = (t: Tensor): number => t.size * bytesOf(t.dtype);

/** Who reads what in a graph, and which of its nodes have become part of another: what decides about joining nodes. */
export class Usage {
  /** All nodes but the updates, in the order in which they run. */
  readonly nodes: readonly Node[];
  /** Nodes that became part of a later one. */
  readonly absorbed = new Set<Node>();
  private readonly kept: ReadonlySet<Tensor>;
  private readonly step = new Map<Node, number>();
  private readonly readers = new Map<Tensor, Node[]>();

  constructor({ outputs, taps = {}, updates = [] }: Graph) {
    const read = updates.flatMap((node) => node.inputs.filter((t): t is Tensor => !!t));
    this.kept = new Set([...Object.values(outputs), ...Object.values(taps), ...read]);
    const writers = new Set(updates);
    this.nodes = reachable([...this.kept]).filter((node) => !writers.has(node));
    this.nodes.forEach((node, i) => {
      this.step.set(node, i);
      for (const t of node.inputs) {
        if (t && !this.readers.get(t)?.push(node)) this.readers.set(t, [node]);
      }
    });
  }

  /** When `t` is computed. */
  stepOf(t: Tensor): number {
    return this.step.get(t.node)!;
  }

  /** The one node that reads `t`, once, where no result, tap or update does. */
  soleReader(t: Tensor): Node | undefined {
    const readers = this.readers.get(t) ?? [];
    return readers.length === 1 && !this.kept.has(t) ? readers[0] : undefined;
  }

  /**
   * Whether `t` may be computed where `node` is, from `inputs`, and the nodes `joining` too: what has to live longer for it
   * is hardly larger than `t`.
   */
  mayWait(t: Tensor, inputs: readonly Tensor[], node: Node, joining: readonly Node[] = []): boolean {
    const end = this.step.get(node)!;
    const between = this.nodes.slice(this.stepOf(t) + 1, end);
    const goes = (it: Node): boolean => this.absorbed.has(it) || joining.includes(it) || !!it.leaf || it.op === 'full';
    if (between.every(goes)) return true;
    const dies = (input: Tensor): boolean =>
      !persistent(input) &&
      !this.kept.has(input) &&
      this.readers.get(input)!.every((reader) => this.step.get(reader)! < end);
    return inputs.filter(dies).reduce((sum, input) => sum + bytes(input), 0) <= SLACK * bytes(t);
  }
}

/**
 * The graph with nodes replaced: where `node` was, `replacement` makes a tensor that stands for one of the old graph, in
 * terms of `now`, which maps old tensors to new ones; it returns both, the old one first. Absorbed nodes go, all others are
 * made anew, so that the order of creation stays the order of execution.
 */
export function rebuilt(
  graph: Graph,
  { nodes, absorbed }: Usage,
  replacement: (node: Node, now: (t: Tensor) => Tensor) => readonly [Tensor, Tensor] | undefined,
): Graph {
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
  for (const node of nodes) {
    if (node.leaf || absorbed.has(node)) continue;
    const replaced = replacement(node, now);
    if (replaced) made.set(...replaced);
    else again(node);
  }
  const renamed = (tensors: Readonly<Record<string, Tensor>>): Record<string, Tensor> =>
    Object.fromEntries(Object.entries(tensors).map(([name, t]) => [name, now(t)]));
  return {
    outputs: renamed(graph.outputs),
    updates: (graph.updates ?? []).map(again),
    ...(graph.taps ? { taps: renamed(graph.taps) } : {}),
  };
}
