// gemm.h on tensor cores with a given plan, for tests; gemm chooses one.
#pragma once
#include "gemm/gemm.h"
#include "gemm/plan_mma.h"

namespace refl::cuda {

MmaSize mmaSizeOf(const GemmShape& shape);

/** T: bf16 or f16. `scratch` has partialBytes(mmaSizeOf(shape), plan.splits). */
template <class T>
cudaError_t gemmMma(const GemmShape& shape, const MmaPlan& plan, const T* a, const T* b, const T* bias, T* c,
                    std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue = {});

}  // namespace refl::cuda
