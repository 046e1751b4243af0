// Matrix products of row-major matrices: c[i] = a[i] * b[i] (+ bias), through an epilogue, for each i of a batch. All
// sums are float32, and rounded once.
#pragma once
#include <cstddef>
#include <cstdint>

#include "gemm/epilogue.h"
#include "simt/launch.h"

namespace refl::cuda {

struct GemmShape {
  int batch, m, n, k;
  bool transposeA;  // a is stored [k, m] instead of [m, k]
  bool transposeB;  // b is stored [n, k] instead of [k, n]
  // Elements from one row, as stored, to the next; and from one matrix of the batch to the next (0: one serves all).
  int lda, ldb, ldc;
  int64_t strideA, strideB, strideC;
  bool tf32 = false;  // float operands may be rounded to tf32, for tensor cores
};

/** Bytes of scratch that gemm<T> needs: partial sums where k is split. It depends on the shape alone. */
template <class T>
size_t gemmScratch(const GemmShape& shape);

/** T: float (products and sums in true float32, unless tf32 is asked for), bf16, f16 (tensor cores). `bias` has n
 * elements or is null. c overlaps nothing; it holds floats where the epilogue says so. Pointers are aligned to their
 * element and no more: what alignment is there decides the accesses. k may be 0.
 */
template <class T>
cudaError_t gemm(const GemmShape& shape, const T* a, const T* b, const T* bias, T* c, std::byte* scratch,
                 cudaStream_t stream, const Epilogue& epilogue = {});

}  // namespace refl::cuda
