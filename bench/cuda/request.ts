import { bytesOf } from '../../lib/graph/dtype.ts';
import { reachable } from '../../lib/graph/grad.ts';
import { encodeAttr, opTable } from '../../lib/graph/table.ts';
import type { Tensor } from '../../lib/graph/tensor.ts';
import type { Shape } from './shapes.ts';

/** Tensors that stay float32 beside others of 16 bits. */
const statistics = new Set(['gamma', 'beta', 'mean', 'rstd', 'lse', 'dgamma', 'dbeta']);

/** A shape's node in the words of bench/cuda/operators.cc, and the bytes of the tensors it reads and writes. */
export function requestOf(shape: Shape, dtype: string): { words: string[]; bytes: number } {
  const found = reachable(shape.results).filter(({ op }) => op === shape.op);
  if (found.length !== 1) throw new Error(`${shape.name} has ${found.length} nodes named ${shape.op}`);
  const [node] = found;
  const row = opTable[node.op];
  let bytes = 0;
  const word = (mark: string, name: string, t: Tensor | undefined): string => {
    if (!t) return `${mark}-`;
    const type = t.dtype === 'f32' && !statistics.has(name) ? dtype : t.dtype;
    bytes += t.size * (type === 'bf16' || type === 'f16' ? 2 : bytesOf(t.dtype));
    return `${mark}${shape.frozen.has(t) ? '!' : ''}${type}:${t.shape.join('x')}`;
  };
  const words = [
    ...node.inputs.map((t, i) => word('<', row.inputs[i].replace('?', ''), t)),
    ...node.outputs.map((t, i) => word('>', row.outputs[i], t)),
    ...Object.entries(row.attrs).map(([name, kind]) => `@${encodeAttr(kind, node.attrs[name]).join(',')}`),
  ];
  return { words, bytes };
}
