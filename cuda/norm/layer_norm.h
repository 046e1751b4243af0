// Layer norm of `rows` [C] and its gradients. T: float, bf16 or f16; computed in float32.
#pragma once
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** y [rows, channels], mean and rstd [rows] from x, gamma and beta [channels]; rows * channels < 2^31. y may be x.
 * gamma and beta lie at multiples of 16 bytes. */
template <class T>
cudaError_t layerNorm(int rows, int channels, const T* x, const float* gamma, const float* beta, float eps, T* y,
                      float* mean, float* rstd, cudaStream_t stream);

/** Bytes of layerNormGrad's scratch. */
size_t layerNormGradScratch(int rows, int channels);

/** dx may be dy. */
template <class T>
cudaError_t layerNormGrad(int rows, int channels, const T* x, const float* gamma, const float* mean, const float* rstd,
                          const T* dy, T* dx, float* dgamma, float* dbeta, float* scratch, cudaStream_t stream);

}  // namespace refl::cuda
