// A block for each image and chunk of pixels. A thread keeps one vector of channels and takes every so many pixels;
// then the block's rows of threads are added up in shared memory, in order. Reads x and dy once, 8 bytes a channel and
// chunk are written; about 6 operations an element, with SiLU 30. Accumulates in float32.
#include "norm/column_sums.h"

namespace refl::cuda {
namespace {

using namespace simt;

/** Rows of threads, each with a vector of all channels. */
int rowsOf(int perPixel) { return perPixel < kThreads ? kThreads / perPixel : 1; }

// Dynamic shared memory: 2 V floats a thread, where a block has more than one row of threads.
template <class T, int V, bool kSilu>
__global__ void __launch_bounds__(kThreads, 3)
    columnSumsKernel(const ColumnSums s, const T* __restrict__ x, const T* __restrict__ dy, int rows,
                     float* __restrict__ sums) {
  const int image = static_cast<int>(blockIdx.x) / s.chunks, chunk = static_cast<int>(blockIdx.x) % s.chunks;
  const int perPixel = s.channels / V, first = chunk * s.chunkPixels, last = min(first + s.chunkPixels, s.pixels);
  const size_t base = static_cast<size_t>(image) * s.pixels * s.channels;
  SharedArena arena;
  float* partial = arena.take<float>(rows > 1 ? rows * s.channels * 2 : 0);
  float* to = sums + static_cast<size_t>(image) * 2 * s.channels * s.chunks + chunk;

  for (int i = static_cast<int>(threadIdx.x); i < rows * perPixel; i += kThreads) {
    const int row = i / perPixel, channel = i % perPixel * V;
    float sum[V] = {}, sumX[V] = {}, gamma[V] = {}, beta[V] = {}, mean = 0, rstd = 0;
    if (kSilu) {
      loadFloats(s.gamma + channel, gamma);
      loadFloats(s.beta + channel, beta);
    }
    if (s.groups) {
      const int group = image * s.groups + channel / (s.channels / s.groups);
      mean = s.mean[group];
      rstd = s.rstd[group];
    }
    for (int p = first + row; p < last; p += rows) {
      if (!s.groups) {
        mean = s.mean[image * s.pixels + p];
        rstd = s.rstd[image * s.pixels + p];
      }
      const size_t at = base + static_cast<size_t>(p) * s.channels + channel;
      const Pack<T, V> vx = load<V>(x + at), vg = load<V>(dy + at);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float xhat = (toFloat(vx[k]) - mean) * rstd;
        float g = toFloat(vg[k]);
        if (kSilu) g *= siluSlope(fmaf(xhat, gamma[k], beta[k]));
        sum[k] += g;
        sumX[k] = fmaf(g, xhat, sumX[k]);
      }
    }
#pragma unroll
    for (int k = 0; k < V; ++k) {
      if (rows > 1) {
        partial[row * s.channels + channel + k] = sum[k];
        partial[(rows + row) * s.channels + channel + k] = sumX[k];
      } else {
        to[(channel + k) * s.chunks] = sum[k];
        to[(s.channels + channel + k) * s.chunks] = sumX[k];
      }
    }
  }
  __syncthreads();

  if (rows > 1) {
    for (int i = static_cast<int>(threadIdx.x); i < 2 * s.channels; i += kThreads) {
      const float* of = partial + i / s.channels * rows * s.channels + i % s.channels;
      float sum = 0;
      for (int row = 0; row < rows; ++row) sum += of[row * s.channels];
      to[i * s.chunks] = sum;
    }
  }
}

}  // namespace

template <class T>
cudaError_t columnSums(const ColumnSums& s, bool silu, int images, const T* x, const T* dy, float* sums,
                       cudaStream_t stream) {
  return withVector<T>(s.groups ? s.channels / s.groups : s.channels, {x, dy}, [&](auto width) {
    constexpr int V = decltype(width)::value;
    const int rows = rowsOf(s.channels / V);
    const Launch at = {dim3(images * s.chunks), kThreads,
                       SharedLayout().take<float>(rows > 1 ? rows * s.channels * 2 : 0).bytes(), stream};
    return silu ? launch<columnSumsKernel<T, V, true>>(at, s, x, dy, rows, sums)
                : launch<columnSumsKernel<T, V, false>>(at, s, x, dy, rows, sums);
  });
}

template cudaError_t columnSums(const ColumnSums&, bool, int, const float*, const float*, float*, cudaStream_t);
template cudaError_t columnSums(const ColumnSums&, bool, int, const bf16*, const bf16*, float*, cudaStream_t);
template cudaError_t columnSums(const ColumnSums&, bool, int, const f16*, const f16*, float*, cudaStream_t);

}  // namespace refl::cuda
