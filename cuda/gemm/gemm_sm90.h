// gemm.h for Hopper (sm_90a): bf16 and f16 by TMA and wgmma.
#pragma once
#include "gemm/gemm.h"

namespace refl::cuda {

/** Whether gemmSm90 can do it: sums of one step or more, rows of a whole number of 16 bytes. Pointers must be multiples
 * of 128. */
bool gemmSm90Fits(const GemmShape& shape);

/** Columns of a tile: 256, or 128 where those would leave processors idle. */
int gemmSm90Columns(const GemmShape& shape);

/** As gemm, with tiles of `columns`. */
template <class T>
cudaError_t gemmSm90(const GemmShape& shape, int columns, const T* a, const T* b, const T* bias, T* c,
                     cudaStream_t stream, const Epilogue& epilogue = {});

}  // namespace refl::cuda
