import { ReflError } from '../errors.ts';
import { add, full } from './ops/elementwise.ts';
import { asLayer, cloneNode, type Node, ruleOf, sameShape, type Tensor } from './tensor.ts';

/**
 * Reverse-mode derivatives of sum(outputs[k] * cotangents[k]) with respect to `wrt`.
 *
 * @param outputs one tensor (usually a scalar loss), or several
 * @param wrt any tensors of the graph, usually parameters or feeds
 * @param cotangents one per output, of its shape; ones when left out
 * @returns one tensor per entry of `wrt`, of its shape; zeros where the outputs do not depend on it. Nodes carry the
 *   layer of what they differentiate, as `down.0.conv (gradient)`.
 */
export function grad(
  outputs: Tensor | readonly Tensor[],
  wrt: readonly Tensor[],
  cotangents?: readonly Tensor[],
): Tensor[] {
  const roots = Array.isArray(outputs) ? (outputs as readonly Tensor[]) : [outputs as Tensor];
  const order = reachable(roots);
  const wanted = new Set(wrt);
  const onPath = new Set<Node>();
  for (const node of order) {
    if (node.outputs.some((t) => wanted.has(t)) || node.inputs.some((t) => t && onPath.has(t.node))) onPath.add(node);
  }

  const sums = new Map<Tensor, Tensor>();
  const accumulate = (t: Tensor, g: Tensor, layer = ''): void => {
    if (!sameShape(t.shape, g.shape)) {
      throw new ReflError('ERR_GRAPH', `${layer && `${layer}: `}the gradient of ${t} came out as ${g}`);
    }
    const sum = sums.get(t);
    sums.set(t, sum ? add(sum, g) : g);
  };
  roots.forEach((root, k) => {
    accumulate(root, cotangents?.[k] ?? full(root.shape, 1, root.dtype));
  });

  const replay = new Replay(order);
  for (const node of order.reverse()) {
    // Also passed over: a wanted node that depends on no other wanted one, whose derivative nobody asks for.
    if (!node.inputs.some((t) => t && onPath.has(t.node))) continue;
    const grads = node.outputs.map((t) => sums.get(t));
    if (grads.every((g) => !g)) continue;
    const rule = ruleOf(node.op);
    if (!rule?.vjp) {
      throw new ReflError('ERR_NO_GRADIENT', `${node.layer ? `${node.layer}: ` : ''}${node.op} has no derivative`);
    }
    const again = replay.of(node);
    const differentiate = (layer?: string): void => {
      const inputGrads = rule.vjp!(again, grads);
      node.inputs.forEach((t, i) => {
        const g = inputGrads[i];
        if (t && g && (onPath.has(t.node) || wanted.has(t))) accumulate(t, g, layer);
      });
    };
    const layer = `${node.layer} (gradient)`;
    if (node.layer) asLayer(layer, () => differentiate(layer));
    else differentiate();
  }
  return wrt.map((t) => sums.get(t) ?? full(t.shape, 0, t.dtype));
}

/** All nodes that `roots` depend on, in creation order, which is a topological one. */
export function reachable(roots: readonly Tensor[]): Node[] {
  const seen = new Set<Node>();
  const stack = roots.map((t) => t.node);
  while (stack.length) {
    const node = stack.pop()!;
    if (seen.has(node)) continue;
    seen.add(node);
    for (const t of node.inputs) if (t) stack.push(t.node);
  }
  return [...seen].sort((a, b) => a.id - b.id);
}

/** Names of the feeds that `roots` depend on. */
export const inputNames = (roots: readonly Tensor[]): Set<string> =>
  new Set(reachable(roots).flatMap(({ leaf }) => (leaf?.kind === 'input' ? [leaf.name] : [])));

/** Traces recompute segments a second time, each when its first node is differentiated. */
class Replay {
  private readonly members = new Map<object, Node[]>();
  private readonly clones = new Map<Node, Node>();

  constructor(order: readonly Node[]) {
    for (const node of order) {
      if (!node.recompute || node.leaf) continue;
      const list = this.members.get(node.recompute);
      if (list) list.push(node);
      else this.members.set(node.recompute, [node]);
    }
  }

  of(node: Node): Node {
    const segment = node.recompute;
    if (!segment || node.leaf) return node;
    if (!this.clones.has(node)) {
      for (const member of this.members.get(segment)!) {
        const inputs = member.inputs.map((t) => t && (this.clones.get(t.node)?.outputs[t.index] ?? t));
        this.clones.set(member, cloneNode(member, inputs));
      }
    }
    return this.clones.get(node)!;
  }
}
