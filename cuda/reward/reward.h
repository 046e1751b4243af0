// What judges and their losses are made of, with gradients. T: float, bf16 or f16; sums and results of few numbers are
// float32. Addresses are multiples of 16 bytes, tensors have under 2^31 elements.
#pragma once
#include <cstdint>
#include <vector>

#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** a [batches, k, width] and b [batches, l, width]. The inverse of a norm is `most` at the most. */
struct Vectors {
  int batches, k, l, width;
  float most;
};

/** y [batches, k, l], inverse norms of a [batches, k] and of b [batches, l]. */
template <class T>
cudaError_t cosines(const Vectors& s, const T* a, const T* b, float* y, float* inverseA, float* inverseB,
                    cudaStream_t stream);

/** da and db from what `cosines` wrote and dy [batches, k, l]. */
template <class T>
cudaError_t cosinesGrad(const Vectors& s, const T* a, const T* b, const float* y, const float* inverseA,
                        const float* inverseB, const float* dy, T* da, T* db, cudaStream_t stream);

/** x [rows, classes]. Labels are class numbers [rows] or, where those are null, shares [rows, classes]; logScale, which
 * may be null, is the logarithm of a factor of x. */
template <class T>
struct Logits {
  int rows, classes;
  const T* x;
  const int32_t* numbers;
  const T* shares;
  const float* logScale;
};

/** *y is the mean cross entropy of the rows' softmax. */
template <class T>
cudaError_t crossEntropy(const Logits<T>& s, float* y, cudaStream_t stream);
template <class T>
cudaError_t crossEntropyGrad(const Logits<T>& s, const float* dy, T* dx, float* dLogScale, cudaStream_t stream);

/** Features [images, positions, channels]. */
struct Features {
  int images, positions, channels;
};

/** Bytes of scratch of directionDistance. */
template <class T>
size_t directionDistanceScratch(const Features& s);

/** y [images]: the mean over positions of sum(weight (a / (|a| + 1e-10) - b / (|b| + 1e-10))^2); 1e-15 is the least
 * norm. */
template <class T>
cudaError_t directionDistance(const Features& s, const T* a, const T* b, const float* weight, float* y, float* scratch,
                              cudaStream_t stream);
/** da; b's gradient is that of a and b exchanged. */
template <class T>
cudaError_t directionDistanceGrad(const Features& s, const T* a, const T* b, const float* weight, const float* dy,
                                  T* da, cudaStream_t stream);

/** Two tensors of `count` elements, not 0. */
template <class T>
struct ErrorPair {
  const T *a, *b;
  int count;
};

/** Bytes of scratch of meanError. */
template <class T>
size_t meanErrorScratch(const std::vector<ErrorPair<T>>& pairs);

/** *y is the sum of the pairs' means of (a - b)^2, or of |a - b|. */
template <class T>
cudaError_t meanError(const std::vector<ErrorPair<T>>& pairs, bool absolute, double* scratch, float* y,
                      cudaStream_t stream);

/** A filter of an axis, from `from` to `to` places: place i has taps[k, i] at first[i] + k, for k under `count`. */
struct Band {
  const float* taps;
  const int32_t* first;
  int count, from, to;
};
/** Of images [images, alongY.from, alongX.from, channels]. */
struct Filter {
  int images, channels;
  Band alongY, alongX;
};

/** Bytes of scratch. */
size_t lowPassScratch(const Filter& f);
size_t lowPassGradScratch(const Filter& f);

/** y [images, alongY.to, alongX.to, channels], and level [images], the mean of |y|. */
template <class T>
cudaError_t lowPass(const Filter& f, const T* x, float* y, float* level, float* scratch, cudaStream_t stream);

/** dx from y and the gradients by y and by the level, either of which may be null; f holds the transposed filters. */
cudaError_t lowPassGrad(const Filter& f, const float* y, const float* dy, const float* dLevel, float* dx,
                        float* scratch, cudaStream_t stream);

}  // namespace refl::cuda
