// Optimizer updates and reductions over many tensors at once. Parameters, moments, averages, totals and scalars are
// float32; G, the type of gradients and values, is float, bf16 or f16. Addresses are multiples of 16 bytes; scalars lie
// in device memory.
#pragma once
#include <vector>

#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** A parameter with its gradient and moments, all of `count` elements. */
template <class G>
struct AdamwGroup {
  float* param;
  const G* grad;
  float *m, *v;
  int count;
  float weightDecay;
};

struct AdamwConstants {
  double beta1, beta2, eps;
};

/** Bytes of scratch that adamw needs. */
constexpr size_t kAdamwScratch = 4 * sizeof(float);

/** One step of PyTorch's AdamW; nothing is written unless *ok > 0. */
template <class G>
cudaError_t adamw(const float* lr, const float* step, const float* scale, const float* ok,
                  const AdamwConstants& constants, const std::vector<AdamwGroup<G>>& groups, void* scratch,
                  cudaStream_t stream);

/** A tensor that is updated from another, both of `count` elements. */
template <class G>
struct Pair {
  float* target;
  const G* value;
  int count;
};

/** target += (1 - *decay) (value - target); nothing unless *ok > 0. */
template <class G>
cudaError_t ema(const float* decay, const float* ok, const std::vector<Pair<G>>& pairs, cudaStream_t stream);

/** target += *scale value. */
template <class G>
cudaError_t accumulate(const float* scale, const std::vector<Pair<G>>& pairs, cudaStream_t stream);

/** target = value; nothing unless *ok > 0. */
template <class G>
cudaError_t assign(const float* ok, const std::vector<Pair<G>>& pairs, cudaStream_t stream);

template <class G>
struct Elements {
  const G* at;
  int count;
};

/** Partial sums (doubles) that a tensor of `count` elements leaves. */
int partialsOf(int count);

/** Sums of squares, for each tensor partialsOf(count) of them one after the other. */
template <class G>
cudaError_t sumSquares(const std::vector<Elements<G>>& tensors, double* partials, cudaStream_t stream);
/** The same of ones for each element that is infinite or NaN. */
template <class G>
cudaError_t countNonFinite(const std::vector<Elements<G>>& tensors, double* partials, cudaStream_t stream);

/** *y is the square root of the sum of the partial sums. */
cudaError_t finishNorm(const double* partials, int count, float* y, cudaStream_t stream);
/** *y is 1 where they are all 0, else 0. */
cudaError_t finishFinite(const double* partials, int count, float* y, cudaStream_t stream);

}  // namespace refl::cuda
