// conv2d.h on tensor cores with given plans, for tests; the functions there choose them.
#pragma once
#include "conv2d/conv2d.h"
#include "gemm/plan_mma.h"

namespace refl::cuda {

MmaSize mmaSizeOfForward(const ConvShape& shape);
MmaSize mmaSizeOfGradInput(const ConvShape& shape);
MmaSize mmaSizeOfGradWeight(const ConvShape& shape);

// T: bf16 or f16. `scratch` has partialBytes(size, plan.splits).
template <class T>
cudaError_t conv2dForwardMma(const ConvShape& shape, const MmaPlan& plan, const T* x, const T* packed, const T* bias,
                             T* y, std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue = {});
template <class T>
cudaError_t conv2dGradInputMma(const ConvShape& shape, const MmaPlan& plan, const T* dy, const T* packed, T* dx,
                               std::byte* scratch, cudaStream_t stream, const Epilogue& epilogue = {});
template <class T>
cudaError_t conv2dGradWeightMma(const ConvShape& shape, const MmaPlan& plan, const T* x, const T* dy, T* dw,
                                std::byte* scratch, cudaStream_t stream, bool toFloat = false);

}  // namespace refl::cuda
