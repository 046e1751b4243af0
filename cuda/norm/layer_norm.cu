// Layer norm, forward and backward. A row belongs to a warp, or to a block where it has more than 1024 elements.
//
// Forward: the mean, the variance about it, then the result; the row is read three times, from memory once and then
// from cache. Backward: 1. each channel's sums over chunks of rows (column_sums.h); 2. a warp a channel adds up the
// chunks to dgamma and dbeta; 3. each row's means of gamma g and gamma g xhat, then dx = rstd (gamma g - mean - xhat
// mean'). So x and dy are read twice from memory, or from L2 where they fit in it. About 8 operations an element
// forwards, 20 backwards; accumulates in float32, in an order that depends on the shape alone.
#include "norm/column_sums.h"
#include "norm/layer_norm.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kWidest = 1024;  // row that one warp does

/** The sum over the kGroup threads of a row. */
template <int kGroup>
__device__ __forceinline__ float groupSum(float v, float* partial) {
  if constexpr (kGroup > 32) return blockSum(v, partial);
  return warpSum(v);
}

template <class T, int V, int kGroup>
__global__ void __launch_bounds__(kThreads)
    layerNormKernel(int rows, int channels, const T* x, const float* __restrict__ gamma, const float* __restrict__ beta,
                    float eps, T* y, float* __restrict__ mean, float* __restrict__ rstd) {
  SIMT_SHARED(float, sums, [kWarps]);
  SIMT_SHARED(float, squares, [kWarps]);
  const int row = static_cast<int>(blockIdx.x * (kThreads / kGroup) + threadIdx.x / kGroup);
  const int first = static_cast<int>(threadIdx.x) % kGroup * V;
  if (row < rows) {
    x += static_cast<size_t>(row) * channels;
    y += static_cast<size_t>(row) * channels;
    float sum = 0, square = 0;
    for (int i = first; i < channels; i += kGroup * V) {
      const Pack<T, V> v = load<V>(x + i);
#pragma unroll
      for (int k = 0; k < V; ++k) sum += toFloat(v[k]);
    }
    const float centre = groupSum<kGroup>(sum, sums) / static_cast<float>(channels);
    for (int i = first; i < channels; i += kGroup * V) {
      const Pack<T, V> v = load<V>(x + i);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float d = toFloat(v[k]) - centre;
        square = fmaf(d, d, square);
      }
    }
    const float scale = rsqrtf(groupSum<kGroup>(square, squares) / static_cast<float>(channels) + eps);
    if (threadIdx.x % kGroup == 0) {
      mean[row] = centre;
      rstd[row] = scale;
    }
    for (int i = first; i < channels; i += kGroup * V) {
      Pack<T, V> v = load<V>(x + i);
      float gain[V], shift[V];
      loadFloats(gamma + i, gain);
      loadFloats(beta + i, shift);
#pragma unroll
      for (int k = 0; k < V; ++k) v[k] = fromFloat<T>(fmaf((toFloat(v[k]) - centre) * scale, gain[k], shift[k]));
      store(y + i, v);
    }
  }
}

template <class T, int V, int kGroup>
__global__ void __launch_bounds__(kThreads)
    layerNormGradKernel(int rows, int channels, const T* __restrict__ x, const float* __restrict__ gamma,
                        const float* __restrict__ mean, const float* __restrict__ rstd, const T* dy, T* dx) {
  SIMT_SHARED(float, sums, [kWarps]);
  SIMT_SHARED(float, products, [kWarps]);
  const int row = static_cast<int>(blockIdx.x * (kThreads / kGroup) + threadIdx.x / kGroup);
  const int first = static_cast<int>(threadIdx.x) % kGroup * V;
  if (row < rows) {
    x += static_cast<size_t>(row) * channels;
    dy += static_cast<size_t>(row) * channels;
    dx += static_cast<size_t>(row) * channels;
    const float centre = mean[row], scale = rstd[row];
    float sum = 0, sumX = 0;
    for (int i = first; i < channels; i += kGroup * V) {
      const Pack<T, V> vx = load<V>(x + i), vg = load<V>(dy + i);
      float gain[V];
      loadFloats(gamma + i, gain);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float g = toFloat(vg[k]) * gain[k];
        sum += g;
        sumX = fmaf(g, (toFloat(vx[k]) - centre) * scale, sumX);
      }
    }
    const float of = groupSum<kGroup>(sum, sums) / static_cast<float>(channels);
    const float ofX = groupSum<kGroup>(sumX, products) / static_cast<float>(channels);
    for (int i = first; i < channels; i += kGroup * V) {
      const Pack<T, V> vx = load<V>(x + i), vg = load<V>(dy + i);
      float gain[V];
      loadFloats(gamma + i, gain);
      Pack<T, V> result;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float xhat = (toFloat(vx[k]) - centre) * scale;
        result[k] = fromFloat<T>(scale * (toFloat(vg[k]) * gain[k] - of - xhat * ofX));
      }
      store(dx + i, result);
    }
  }
}

/** A warp a channel. */
__global__ void __launch_bounds__(kThreads) addChunksKernel(const float* __restrict__ sums, int channels, int chunks,
                                                            float* __restrict__ dgamma, float* __restrict__ dbeta) {
  const int channel = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / 32;
  if (channel < channels) {
    const float sum = chunkSum(sums + static_cast<size_t>(channel) * chunks, chunks);
    const float sumX = chunkSum(sums + static_cast<size_t>(channels + channel) * chunks, chunks);
    if (threadIdx.x % 32 == 0) {
      dbeta[channel] = sum;
      dgamma[channel] = sumX;
    }
  }
}

/** run(kGroup, how to launch) for rows of so many channels. */
template <class Fn>
cudaError_t onGroups(int rows, int channels, cudaStream_t stream, Fn&& run) {
  if (channels > kWidest) return run(std::integral_constant<int, kThreads>(), Launch{dim3(rows), kThreads, 0, stream});
  return run(std::integral_constant<int, 32>(), Launch{dim3((rows + kWarps - 1) / kWarps), kThreads, 0, stream});
}

}  // namespace

template <class T>
cudaError_t layerNorm(int rows, int channels, const T* x, const float* gamma, const float* beta, float eps, T* y,
                      float* mean, float* rstd, cudaStream_t stream) {
  return withVector<T>(channels, {x, y}, [&](auto width) {
    return onGroups(rows, channels, stream, [&](auto group, const Launch& at) {
      return launch<layerNormKernel<T, decltype(width)::value, decltype(group)::value>>(at, rows, channels, x, gamma,
                                                                                        beta, eps, y, mean, rstd);
    });
  });
}

size_t layerNormGradScratch(int rows, int channels) {
  return static_cast<size_t>(2) * channels * Chunks(rows).count * sizeof(float);
}

template <class T>
cudaError_t layerNormGrad(int rows, int channels, const T* x, const float* gamma, const float* mean, const float* rstd,
                          const T* dy, T* dx, float* dgamma, float* dbeta, float* scratch, cudaStream_t stream) {
  const Chunks chunks(rows);
  const ColumnSums s = {rows, channels, chunks.pixels, chunks.count, mean, rstd, 0, nullptr, nullptr};
  return withVector<T>(channels, {x, dy, dx}, [&](auto width) {
    constexpr int V = decltype(width)::value;
    cudaError_t status = columnSums(s, false, 1, x, dy, scratch, stream);
    if (status != cudaSuccess) return status;
    status = launch<addChunksKernel>({dim3((channels + kWarps - 1) / kWarps), kThreads, 0, stream}, scratch, channels,
                                     chunks.count, dgamma, dbeta);
    if (status != cudaSuccess) return status;
    return onGroups(rows, channels, stream, [&](auto group, const Launch& at) {
      return launch<layerNormGradKernel<T, V, decltype(group)::value>>(at, rows, channels, x, gamma, mean, rstd, dy,
                                                                       dx);
    });
  });
}

#define REFL_LAYER_NORM(T)                                                                                       \
  template cudaError_t layerNorm(int, int, const T*, const float*, const float*, float, T*, float*, float*,      \
                                 cudaStream_t);                                                                  \
  template cudaError_t layerNormGrad(int, int, const T*, const float*, const float*, const float*, const T*, T*, \
                                     float*, float*, float*, cudaStream_t);
REFL_LAYER_NORM(float)
REFL_LAYER_NORM(bf16)
REFL_LAYER_NORM(f16)

}  // namespace refl::cuda
