// Uniform and normal numbers from Philox4x32-10, the same bits as the CPU's.
#pragma once
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** `count` numbers, multiples of 2^-24 in [0, 1). `state`: seed low, seed high, stream, offset, in device memory. `y`
 * is a multiple of 16 bytes. T: float, or bf16 and f16, which round the float. */
template <class T>
cudaError_t randomUniform(const uint32_t* state, T* y, unsigned count, cudaStream_t stream);

/** The same of the standard normal distribution. */
template <class T>
cudaError_t randomNormal(const uint32_t* state, T* y, unsigned count, cudaStream_t stream);

}  // namespace refl::cuda
