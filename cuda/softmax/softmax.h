// Softmax and its logarithm over the last axis, with their gradients. T: float, bf16 or f16; computed in float32. A
// result may lie where x or dy does.
#pragma once
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** `rows` of `width` elements, in all under 2^31; base addresses are multiples of 16 bytes. */
struct Rows {
  unsigned rows, width;
};

/** y = exp(x) / sum(exp(x)), or its logarithm. */
template <class T>
cudaError_t softmax(const Rows& rows, bool logarithm, const T* x, T* y, cudaStream_t stream);

/** dx = y (dy - sum(y dy)), or, of the logarithm, dy - exp(y) sum(dy). */
template <class T>
cudaError_t softmaxGrad(const Rows& rows, bool logarithm, const T* y, const T* dy, T* dx, cudaStream_t stream);

}  // namespace refl::cuda
