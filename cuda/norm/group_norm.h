// Group norm of images [N, P pixels, C] over P and the C / groups channels of a group, with SiLU folded into the
// output, and its gradients. gamma and beta lie at multiples of 16 bytes.
#pragma once
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

struct GroupNormShape {
  int images, pixels, channels, groups;  // groups divides channels; pixels * channels < 2^31
};

/** Whether an image's group fits into shared memory, so that x is read once. */
template <class T>
bool groupNormFits(const GroupNormShape& shape);

/** Bytes of scratch that groupNormForward needs where groupNormFits is false. */
size_t groupNormScratch(const GroupNormShape& shape);

/** y, mean and rstd [N, groups] from x, gamma and beta [C]. T: float, bf16 or f16; sums are float32. Nothing overlaps
 * but that y may be x. */
template <class T>
cudaError_t groupNormForward(const GroupNormShape& shape, const T* x, const float* gamma, const float* beta, float eps,
                             bool silu, T* y, float* mean, float* rstd, float* scratch, cudaStream_t stream);
/** The form for groups that do not fit; it works for all. */
template <class T>
cudaError_t groupNormInChunks(const GroupNormShape& shape, const T* x, const float* gamma, const float* beta, float eps,
                              bool silu, T* y, float* mean, float* rstd, float* scratch, cudaStream_t stream);

/** Bytes of groupNormGrad's scratch. */
size_t groupNormGradScratch(const GroupNormShape& shape);

/** dx, dgamma and dbeta from what the forward pass had and gave. dx may be dy. */
template <class T>
cudaError_t groupNormGrad(const GroupNormShape& shape, const T* x, const float* gamma, const float* beta,
                          const float* mean, const float* rstd, const T* dy, bool silu, T* dx, float* dgamma,
                          float* dbeta, float* scratch, cudaStream_t stream);

}  // namespace refl::cuda
