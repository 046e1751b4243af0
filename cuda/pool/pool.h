// Pooling of NHWC images and its gradients. T: float, bf16 or f16; sums in float32.
#pragma once
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** Windows of kernelHeight x kernelWidth pixels, `strideY` and `strideX` apart, the first at (-top, -left). What of a
 * window lies outside of the image counts as not there. All sizes under 2^31. */
struct PoolShape {
  unsigned images, channels;
  int height, width, outHeight, outWidth;
  int kernelHeight, kernelWidth, strideY, strideX, top, left;
};

/** y = the windows' means over kernelHeight * kernelWidth pixels. */
template <class T>
cudaError_t avgPool2d(const PoolShape& shape, const T* x, T* y, cudaStream_t stream);
template <class T>
cudaError_t avgPool2dGrad(const PoolShape& shape, const T* dy, T* dx, cudaStream_t stream);

/** y = the windows' maxima; the last NaN wins. The gradient goes to the first pixel that holds the maximum. */
template <class T>
cudaError_t maxPool2d(const PoolShape& shape, const T* x, T* y, cudaStream_t stream);
template <class T>
cudaError_t maxPool2dGrad(const PoolShape& shape, const T* x, const T* dy, T* dx, cudaStream_t stream);

}  // namespace refl::cuda
