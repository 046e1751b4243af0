import { reachable } from './grad.ts';
import { cloneNode, type Tensor } from './tensor.ts';

/**
 * The same computation over other leaves: `outputs` traced again with every tensor that `leaves` maps replaced by what it is
 * mapped to, which must have the same shape and dtype. What does not depend on any is shared.
 */
export function substitute(outputs: readonly Tensor[], leaves: ReadonlyMap<Tensor, Tensor>): Tensor[] {
  const replaced = new Map(leaves);
  for (const node of reachable(outputs)) {
    if (!node.inputs.some((t) => t && replaced.has(t))) continue;
    const clone = cloneNode(
      node,
      node.inputs.map((t) => t && (replaced.get(t) ?? t)),
    );
    for (const [i, t] of node.outputs.entries()) replaced.set(t, clone.outputs[i]);
  }
  return outputs.map((t) => replaced.get(t) ?? t);
}
