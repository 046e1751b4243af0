import { check, defineOp, emit1, floatOf, sizeOf, type Tensor } from '../tensor.ts';

/**
 * Rows of `table` [rows, width] looked up by `indices` (i32, any shape): [...indices, width]. Gradients of repeated
 * indices add up. An index outside of the table fails the run with ERR_FEED on the CPU; on CUDA, whose kernels cannot stop a
 * run, its row is NaN and its gradient is left out.
 */
export const embedding = (table: Tensor, indices: Tensor): Tensor => emit1('embedding', [table, indices]);
defineOp('embedding', {
  infer: ([table, indices]) => {
    check(table.rank === 2, 'the table must be [rows, width]');
    check(indices.dtype === 'i32', 'indices must be i32');
    return [{ shape: [...indices.shape, table.shape[1]], dtype: floatOf(table) }];
  },
  vjp: ({ inputs: [table, indices] }, [g]) => [
    emit1('embeddingGrad', [indices, g], { rows: table!.shape[0] }),
    undefined,
  ],
});
defineOp('embeddingGrad', {
  infer: ([indices, dy], { rows }) => {
    const width = dy.shape.at(-1)!;
    check(sizeOf(indices.shape) * width === dy.size, 'dy must have one row an index');
    return [{ shape: [rows as number, width], dtype: floatOf(dy) }];
  },
});
