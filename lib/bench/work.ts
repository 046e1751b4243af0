import { bytesOf } from '../graph/dtype.ts';
import { reachable } from '../graph/grad.ts';
import { type Node, sizeOf, type Tensor } from '../graph/tensor.ts';

/** What a graph must do, counted from its shapes. */
export interface Work {
  /** Additions and multiplications of products, convolutions (as if direct) and attention; nothing else is counted. */
  readonly flops: number;
  /** Bytes of all tensors that its nodes read and write, each counted once a node. */
  readonly bytes: number;
}

/**
 * The work behind `outputs`.
 *
 * @param counted nodes that are not counted again; those that are come to it
 */
export function workOf(outputs: readonly Tensor[], counted = new Set<Node>()): Work {
  let flops = 0;
  let bytes = 0;
  for (const node of reachable(outputs)) {
    if (node.leaf || node.op === 'reshape' || counted.has(node)) continue;
    counted.add(node);
    flops += flopsOf(node);
    for (const t of [...node.inputs, node.outputs[0]]) bytes += t ? t.size * bytesOf(t.dtype) : 0;
  }
  return { flops, bytes };
}

function flopsOf({ op, inputs, outputs: [y], attrs }: Node): number {
  const [a, b] = inputs as Tensor[];
  // Each value of one tensor meets the values that follow the first axis of a weight, or those of an inner extent.
  const row = (weight: Tensor): number => sizeOf(weight.shape.slice(1));
  switch (op) {
    case 'conv2d':
    case 'linear':
      return 2 * y.size * row(b);
    case 'conv2dGradInput':
      return 2 * a.size * row(b);
    case 'conv2dGradWeight':
      return 2 * b.size * row(y);
    case 'matmul':
      return 2 * y.size * (attrs.transposeA ? a.shape.at(-2)! : a.shape.at(-1)!);
    case 'attention':
      return 4 * a.size * b.shape[1];
    // Scores once more, and the gradients of scores, q, k and v.
    case 'attentionGrad':
      return 10 * a.size * b.shape[1];
    default:
      return 0;
  }
}
