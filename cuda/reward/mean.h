// The last step of sums that several blocks make of each image.
#pragma once
#include "norm/column_sums.h"

namespace refl::cuda {
namespace {

/** y [images] is the sum of an image's partial sums, over `count`. A warp an image. */
__global__ void __launch_bounds__(kThreads)
    meanKernel(int images, int parts, float count, const float* __restrict__ partials, float* __restrict__ y) {
  const int image = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (image < images) {
    const float sum = chunkSum(partials + static_cast<size_t>(image) * parts, parts);
    if (threadIdx.x % 32 == 0) y[image] = sum / count;
  }
}

inline cudaError_t means(int images, int parts, float count, const float* partials, float* y, cudaStream_t stream) {
  return simt::launch<meanKernel>({dim3((images + kWarps - 1) / kWarps), kThreads, 0, stream}, images, parts, count,
                                  partials, y);
}

}  // namespace
}  // namespace refl::cuda
