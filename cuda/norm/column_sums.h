// What the gradients of both normalisations begin with: for each channel the sums of g and of g xhat over pixels, where
// xhat = (x - mean) rstd and g = dy, times SiLU's slope at xhat gamma + beta where that is folded in.
#pragma once
#include "norm/blocks.h"

namespace refl::cuda {

/** Sums lie as [images, 2, channels, chunks]: those of g, then those of g xhat. */
struct ColumnSums {
  int pixels, channels, chunkPixels, chunks;
  const float *mean, *rstd;
  int groups;                 // with statistics of [images, groups]; 0: of [images * pixels]
  const float *gamma, *beta;  // of SiLU's argument
};

__device__ __forceinline__ float siluSlope(float u) {
  const float s = 1.0f / (1.0f + simt::fastExp(-u));
  return s * fmaf(u, 1.0f - s, 1.0f);
}

/** T: float, bf16 or f16. `silu` takes the slope at the vectors' arguments. */
template <class T>
cudaError_t columnSums(const ColumnSums& s, bool silu, int images, const T* x, const T* dy, float* sums,
                       cudaStream_t stream);

/** The sum of a channel's chunks, to all lanes of a warp. */
__device__ __forceinline__ float chunkSum(const float* chunks, int count) {
  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x) % 32; i < count; i += 32) sum += chunks[i];
  return simt::warpSum(sum);
}

}  // namespace refl::cuda
