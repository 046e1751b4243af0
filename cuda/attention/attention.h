// Multi-head attention, softmax(scale q k^T + bias) v for each head, and its gradient, without the scores in memory.
#pragma once
#include "simt/launch.h"
#include "simt/types.h"

namespace refl::cuda {

/** Most features of a head that there are kernels for, and on tensor cores. */
constexpr int kMostHeadSize = 512, kMostMmaHeadSize = 128;

struct AttentionShape {
  int batch, heads, queries, keys, size;  // `size` features a head
  float scale;
  bool causal;            // query i sees keys 0 to i
  int groups, biasHeads;  // of the bias: batch element n takes entry n % groups, a single head serves all; else 0
};

/** The largest number of blocks of a launch for a shape: it must be below 2^31. */
long long attentionBlocks(const AttentionShape& shape);

/** q and y [N, queries, heads * size], k and v [N, keys, heads * size], bias [groups, biasHeads, queries, keys] or
 * null. T: float, bf16 or f16; sums are float32. */
template <class T>
struct AttentionInputs {
  const T *q, *k, *v, *bias;
};

/** y and the rows' log-sum-exp [N, heads, queries], of which no row is empty: a row that a bias of -inf masks in full
 * takes the mean of the values that it would see without. */
template <class T>
cudaError_t attention(const AttentionShape& shape, const AttentionInputs<T>& in, T* y, float* lse, cudaStream_t stream);

/** The same on tensor cores, for bf16 and f16 and heads of at most kMostMmaHeadSize features. */
template <class T>
cudaError_t attentionMma(const AttentionShape& shape, const AttentionInputs<T>& in, T* y, float* lse,
                         cudaStream_t stream);

/** What the gradient's passes read beside the inputs: dy, the log-sum-exp, and delta [N, heads, queries]. A row masked
 * in full has no gradient. */
template <class T>
struct AttentionGradInputs {
  const T *q, *k, *v, *bias, *dy;
  const float *lse, *delta;
};

/** delta = sum(y dy) over each head of each query. */
template <class T>
cudaError_t attentionDelta(const AttentionShape& shape, const T* y, const T* dy, float* delta, cudaStream_t stream);
template <class T>
cudaError_t attentionGradQueries(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dq,
                                 cudaStream_t stream);
template <class T>
cudaError_t attentionGradKeys(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dk, T* dv,
                              cudaStream_t stream);
/** The same two on tensor cores, for bf16 and f16 and heads of at most kMostMmaHeadSize features. */
template <class T>
cudaError_t attentionGradQueriesMma(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dq,
                                    cudaStream_t stream);
template <class T>
cudaError_t attentionGradKeysMma(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dk, T* dv,
                                 cudaStream_t stream);
/** For a shape with a bias. */
template <class T>
cudaError_t attentionGradBias(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dbias,
                              cudaStream_t stream);

}  // namespace refl::cuda
