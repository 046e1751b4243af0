// A row belongs to a warp, or to a block of 256 threads where it has more than 1024 elements; accesses are 16 bytes
// wide where rows are whole vectors. Two passes over the row, whose second reads what the first left in cache: memory
// is read once and written once. About 2 exponentials and 10 operations an element.
//
// The forward pass needs no third: each thread keeps the largest element so far and the sum of exponentials about it,
// and scales the sum when the largest changes. Sums are in float32: per thread in the order of the row, then over lanes
// and warps in an order that never varies.
#include "simt/simt.h"
#include "softmax/softmax.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr unsigned kWidest = 1024;  // row that one warp does

template <class T>
__device__ __forceinline__ float exponential(float x) {
  if constexpr (sizeof(T) == 2) return fastExp(x);
  return expf(x);
}

/** A sum of exponentials of numbers less `most`, the largest of them. */
struct Scaled {
  float most = -INFINITY, sum = 0.0f;

  /** What to subtract while nothing was added: -inf - -inf would be NaN. */
  __device__ __forceinline__ static float about(float most) { return most == -INFINITY ? 0.0f : most; }
  /** The sum about a larger number. */
  template <class T>
  __device__ __forceinline__ float sumAbout(float other) const {
    return sum * exponential<T>(most - about(other));
  }
};

/** Of one thread's: to all threads of the group. */
template <class T, int kGroup>
__device__ __forceinline__ Scaled combined(Scaled own) {
  const float most = warpMax(own.most);
  Scaled all;
  all.sum = warpSum(own.sumAbout<T>(most));
  all.most = most;
  if constexpr (kGroup > 32) {
    SIMT_SHARED(Scaled, warps, [kWarps]);
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (threadIdx.x % 32 == 0) warps[warp] = all;
    __syncthreads();
    for (int i = 0; i < kWarps; ++i) all.most = max(all.most, warps[i].most);
    all.sum = 0.0f;
    for (int i = 0; i < kWarps; ++i) all.sum += warps[i].template sumAbout<T>(all.most);
  }
  return all;
}

template <int kGroup>
__device__ __forceinline__ float summed(float own) {
  float all = warpSum(own);
  if constexpr (kGroup > 32) {
    SIMT_SHARED(float, warps, [kWarps]);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = all;
    __syncthreads();
    all = 0.0f;
    for (int i = 0; i < kWarps; ++i) all += warps[i];
  }
  return all;
}

/** The thread's row, which a group of kGroup threads shares; whole groups may be behind the last. */
template <int kGroup>
__device__ __forceinline__ unsigned rowOf() {
  return blockIdx.x * (kThreads / kGroup) + threadIdx.x / kGroup;
}

template <class T, int V, int kGroup, bool kLog>
__global__ void __launch_bounds__(kThreads) softmaxKernel(const Rows at, const T* x, T* y) {
  const unsigned row = rowOf<kGroup>(), first = threadIdx.x % kGroup * V;
  if (row < at.rows) {
    x += static_cast<size_t>(row) * at.width;
    y += static_cast<size_t>(row) * at.width;
    Scaled own;
    for (unsigned i = first; i < at.width; i += kGroup * V) {
      const Pack<T, V> v = load<V>(x + i);
      float most = own.most;
#pragma unroll
      for (int k = 0; k < V; ++k) most = max(most, toFloat(v[k]));
      own.sum = own.sumAbout<T>(most);
      own.most = most;
#pragma unroll
      for (int k = 0; k < V; ++k) own.sum += exponential<T>(toFloat(v[k]) - Scaled::about(most));
    }
    const Scaled all = combined<T, kGroup>(own);
    const float scale = kLog ? logf(all.sum) : 1.0f / all.sum;
    for (unsigned i = first; i < at.width; i += kGroup * V) {
      Pack<T, V> v = load<V>(x + i);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        // The logarithm is subtracted last: x less the largest is exact near it.
        const float less = toFloat(v[k]) - all.most;
        v[k] = fromFloat<T>(kLog ? less - scale : exponential<T>(less) * scale);
      }
      store(y + i, v);
    }
  }
}

template <class T, int V, int kGroup, bool kLog>
__global__ void __launch_bounds__(kThreads) softmaxGradKernel(const Rows at, const T* y, const T* dy, T* dx) {
  const unsigned row = rowOf<kGroup>(), first = threadIdx.x % kGroup * V;
  if (row < at.rows) {
    y += static_cast<size_t>(row) * at.width;
    dy += static_cast<size_t>(row) * at.width;
    dx += static_cast<size_t>(row) * at.width;
    float own = 0.0f;
    for (unsigned i = first; i < at.width; i += kGroup * V) {
      const Pack<T, V> d = load<V>(dy + i);
      if constexpr (kLog) {
#pragma unroll
        for (int k = 0; k < V; ++k) own += toFloat(d[k]);
      } else {
        const Pack<T, V> v = load<V>(y + i);
#pragma unroll
        for (int k = 0; k < V; ++k) own = fmaf(toFloat(v[k]), toFloat(d[k]), own);
      }
    }
    const float all = summed<kGroup>(own);
    for (unsigned i = first; i < at.width; i += kGroup * V) {
      const Pack<T, V> v = load<V>(y + i);
      Pack<T, V> d = load<V>(dy + i);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float slope = toFloat(d[k]), value = toFloat(v[k]);
        d[k] = fromFloat<T>(kLog ? fmaf(-exponential<T>(value), all, slope) : value * (slope - all));
      }
      store(dx + i, d);
    }
  }
}

/** run(V, kGroup, how to launch) for these rows. */
template <class T, class Fn>
cudaError_t onGroups(const Rows& at, cudaStream_t stream, Fn&& run) {
  const auto group = [&](auto v) {
    if (at.width > kWidest)
      return run(v, std::integral_constant<int, kThreads>(), Launch{at.rows, kThreads, 0, stream});
    return run(v, std::integral_constant<int, 32>(), Launch{(at.rows + kWarps - 1) / kWarps, kThreads, 0, stream});
  };
  return at.width % kPack<T> == 0 ? group(std::integral_constant<int, kPack<T>>())
                                  : group(std::integral_constant<int, 1>());
}

}  // namespace

template <class T>
cudaError_t softmax(const Rows& rows, bool logarithm, const T* x, T* y, cudaStream_t stream) {
  return onGroups<T>(rows, stream, [&](auto v, auto group, const Launch& at) {
    constexpr int V = decltype(v)::value, kGroup = decltype(group)::value;
    return logarithm ? launch<softmaxKernel<T, V, kGroup, true>>(at, rows, x, y)
                     : launch<softmaxKernel<T, V, kGroup, false>>(at, rows, x, y);
  });
}

template <class T>
cudaError_t softmaxGrad(const Rows& rows, bool logarithm, const T* y, const T* dy, T* dx, cudaStream_t stream) {
  return onGroups<T>(rows, stream, [&](auto v, auto group, const Launch& at) {
    constexpr int V = decltype(v)::value, kGroup = decltype(group)::value;
    return logarithm ? launch<softmaxGradKernel<T, V, kGroup, true>>(at, rows, y, dy, dx)
                     : launch<softmaxGradKernel<T, V, kGroup, false>>(at, rows, y, dy, dx);
  });
}

#define REFL_SOFTMAX(T)                                                        \
  template cudaError_t softmax(const Rows&, bool, const T*, T*, cudaStream_t); \
  template cudaError_t softmaxGrad(const Rows&, bool, const T*, const T*, T*, cudaStream_t);
REFL_SOFTMAX(float)
REFL_SOFTMAX(bf16)
REFL_SOFTMAX(f16)

}  // namespace refl::cuda
