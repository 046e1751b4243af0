import { add } from '../../lib/graph/ops/elementwise.ts';
import { concat, reshape } from '../../lib/graph/ops/layout.ts';
import { matmul } from '../../lib/graph/ops/matmul.ts';
import { layerNorm } from '../../lib/graph/ops/norm.ts';
import { accumulate } from '../../lib/graph/ops/optim.ts';
import { lower, type ProgramSpec } from '../../lib/graph/program.ts';
import { input, parameterLeaf, type Tensor } from '../../lib/graph/tensor.ts';
import { native } from '../../lib/runtime/index.ts';

/** A small valid program with all that a declaration can hold, for tests that spoil it. */
export function smallSpec(): ProgramSpec {
  const [x, one] = [input('x', [4, 8]), input('one', [1])];
  const [w, g, b] = [parameterLeaf([8, 8], 'f32'), parameterLeaf([8], 'f32'), parameterLeaf([8], 'f32')];
  const h = layerNorm(add(matmul(x, w), x), g, b, { eps: 1e-5 });
  const y = concat([reshape(h, [8, 4]), reshape(x, [8, 4])], 1);
  return lower({
    outputs: { y, g, h },
    taps: { h },
    updates: [accumulate(one, [[w, matmul(h, h, { transposeA: true })]])],
  });
}

/** Buffers of a native device for the persistent tensors of a program, in slot order. */
export const buffersOf = (device: number, spec: ProgramSpec): number[] =>
  spec.persistent.map(({ tensor }: { tensor: Tensor }) =>
    native().createBuffer(device, tensor.dtype, tensor.shape, false),
  );
