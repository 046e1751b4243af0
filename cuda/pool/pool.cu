// Pooling: a thread has one result pixel's vector of 16 bytes along the channels (one channel where their number is no
// whole number of vectors) and reads the pixels of its window, or, for a gradient, of the windows that hold its pixel.
// Limited by memory: each result is written once; a pixel in k windows is read k times, all but the first from cache.
// The maximum's gradient searches every window that holds the pixel once more, kernelHeight * kernelWidth reads each,
// so that nothing is kept by the forward pass and nothing is added by two threads.
#include "pool/pool.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

// Blocks on a multiprocessor: 64 registers a thread. Left alone, ptxas aims at 40 and spills.
constexpr int kThreads = 256, kBlocks = 4;

/** A run of rows or columns, [begin, end). */
struct Range {
  int begin, end;
};

/** The part of a window from `start` on that lies inside of `extent`. */
__device__ __forceinline__ Range inside(int start, int kernel, int extent) {
  return {max(start, 0), min(start + kernel, extent)};
}

/** The windows that hold the pixel `at` places after the first window's start. */
__device__ __forceinline__ Range windowsOf(int at, int kernel, int stride, int windows) {
  return {max(at - kernel + stride, 0) / stride, min(windows, at / stride + 1)};
}

/** Where a thread works: pixel (y, x) of an image of `rows` x `columns` and the vector of channels from `channel` on.
 */
template <int V>
struct Place {
  unsigned image;
  int y, x;
  unsigned channel;

  __device__ __forceinline__ Place(unsigned vector, unsigned channels, int rows, int columns) {
    const unsigned vectors = channels / V, pixel = vector / vectors, row = pixel / columns;
    channel = (vector - pixel * vectors) * V;
    x = static_cast<int>(pixel - row * columns);
    image = row / rows;
    y = static_cast<int>(row - image * rows);
  }
};

template <int V>
struct Sums {
  float v[V] = {};

  template <class T>
  __device__ __forceinline__ void add(const Pack<T, V>& x) {
#pragma unroll
    for (int i = 0; i < V; ++i) v[i] += toFloat(x[i]);
  }
  template <class T>
  __device__ __forceinline__ void write(T* y, float scale) const {
    Pack<T, V> result;
#pragma unroll
    for (int i = 0; i < V; ++i) result[i] = fromFloat<T>(v[i] * scale);
    store(y, result);
  }
};

/** The maxima of a window and the pixel that holds each, counted along the window's part inside of the image. */
template <class T, int V>
struct Maxima {
  Pack<T, V> best;
  int winner[V];

  __device__ __forceinline__ Maxima(const PoolShape& s, const T* image, Range rows, Range columns) {
    int pixel = 0;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      best[i] = fromFloat<T>(-INFINITY);
      winner[i] = 0;
    }
    for (int y = rows.begin; y < rows.end; ++y) {
      for (int x = columns.begin; x < columns.end; ++x, ++pixel) {
        const Pack<T, V> value = load<V>(image + static_cast<size_t>(y * s.width + x) * s.channels);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          const float v = toFloat(value[i]);
          const bool wins = v > toFloat(best[i]) || v != v;
          if (wins) best[i] = value[i];
          if (wins) winner[i] = pixel;
        }
      }
    }
  }
};

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocks)
    avgPool2dKernel(const PoolShape s, const T* __restrict__ x, T* __restrict__ y, unsigned vectors) {
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector < vectors) {
    const Place<V> at(vector, s.channels, s.outHeight, s.outWidth);
    const Range rows = inside(at.y * s.strideY - s.top, s.kernelHeight, s.height);
    const Range columns = inside(at.x * s.strideX - s.left, s.kernelWidth, s.width);
    const T* image = x + static_cast<size_t>(at.image) * s.height * s.width * s.channels + at.channel;
    Sums<V> sums;
    for (int iy = rows.begin; iy < rows.end; ++iy) {
      for (int ix = columns.begin; ix < columns.end; ++ix)
        sums.add(load<V>(image + static_cast<size_t>(iy * s.width + ix) * s.channels));
    }
    sums.write(y + static_cast<size_t>(vector) * V, 1.0f / static_cast<float>(s.kernelHeight * s.kernelWidth));
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocks)
    avgPool2dGradKernel(const PoolShape s, const T* __restrict__ dy, T* __restrict__ dx, unsigned vectors) {
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector < vectors) {
    const Place<V> at(vector, s.channels, s.height, s.width);
    const Range rows = windowsOf(at.y + s.top, s.kernelHeight, s.strideY, s.outHeight);
    const Range columns = windowsOf(at.x + s.left, s.kernelWidth, s.strideX, s.outWidth);
    const T* grads = dy + static_cast<size_t>(at.image) * s.outHeight * s.outWidth * s.channels + at.channel;
    Sums<V> sums;
    for (int oy = rows.begin; oy < rows.end; ++oy) {
      for (int ox = columns.begin; ox < columns.end; ++ox)
        sums.add(load<V>(grads + static_cast<size_t>(oy * s.outWidth + ox) * s.channels));
    }
    sums.write(dx + static_cast<size_t>(vector) * V, 1.0f / static_cast<float>(s.kernelHeight * s.kernelWidth));
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocks)
    maxPool2dKernel(const PoolShape s, const T* __restrict__ x, T* __restrict__ y, unsigned vectors) {
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector < vectors) {
    const Place<V> at(vector, s.channels, s.outHeight, s.outWidth);
    const T* image = x + static_cast<size_t>(at.image) * s.height * s.width * s.channels + at.channel;
    const Maxima<T, V> maxima(s, image, inside(at.y * s.strideY - s.top, s.kernelHeight, s.height),
                              inside(at.x * s.strideX - s.left, s.kernelWidth, s.width));
    store(y + static_cast<size_t>(vector) * V, maxima.best);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocks)
    maxPool2dGradKernel(const PoolShape s, const T* __restrict__ x, const T* __restrict__ dy, T* __restrict__ dx,
                        unsigned vectors) {
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector < vectors) {
    const Place<V> at(vector, s.channels, s.height, s.width);
    const Range rows = windowsOf(at.y + s.top, s.kernelHeight, s.strideY, s.outHeight);
    const Range columns = windowsOf(at.x + s.left, s.kernelWidth, s.strideX, s.outWidth);
    const T* image = x + static_cast<size_t>(at.image) * s.height * s.width * s.channels + at.channel;
    const T* grads = dy + static_cast<size_t>(at.image) * s.outHeight * s.outWidth * s.channels + at.channel;
    Sums<V> sums;
    for (int oy = rows.begin; oy < rows.end; ++oy) {
      for (int ox = columns.begin; ox < columns.end; ++ox) {
        const Range down = inside(oy * s.strideY - s.top, s.kernelHeight, s.height);
        const Range across = inside(ox * s.strideX - s.left, s.kernelWidth, s.width);
        const Maxima<T, V> maxima(s, image, down, across);
        const int here = (at.y - down.begin) * (across.end - across.begin) + at.x - across.begin;
        Pack<T, V> grad = load<V>(grads + static_cast<size_t>(oy * s.outWidth + ox) * s.channels);
#pragma unroll
        for (int i = 0; i < V; ++i) {
          if (maxima.winner[i] != here) grad[i] = fromFloat<T>(0.0f);
        }
        sums.add(grad);
      }
    }
    sums.write(dx + static_cast<size_t>(vector) * V, 1.0f);
  }
}

/** Calls run(V, vectors, how to launch) for results of `pixels`. */
template <class T, class Fn>
cudaError_t onVectors(const PoolShape& s, int height, int width, cudaStream_t stream, Fn&& run) {
  const unsigned count = s.images * static_cast<unsigned>(height * width) * s.channels;
  const auto with = [&](auto v) {
    const unsigned vectors = count / decltype(v)::value;
    return run(v, vectors, Launch{(vectors + kThreads - 1) / kThreads, kThreads, 0, stream});
  };
  return s.channels % kPack<T> == 0 ? with(std::integral_constant<int, kPack<T>>())
                                    : with(std::integral_constant<int, 1>());
}

}  // namespace

template <class T>
cudaError_t avgPool2d(const PoolShape& s, const T* x, T* y, cudaStream_t stream) {
  return onVectors<T>(s, s.outHeight, s.outWidth, stream, [&](auto v, unsigned vectors, const Launch& at) {
    return launch<avgPool2dKernel<T, decltype(v)::value>>(at, s, x, y, vectors);
  });
}

template <class T>
cudaError_t avgPool2dGrad(const PoolShape& s, const T* dy, T* dx, cudaStream_t stream) {
  return onVectors<T>(s, s.height, s.width, stream, [&](auto v, unsigned vectors, const Launch& at) {
    return launch<avgPool2dGradKernel<T, decltype(v)::value>>(at, s, dy, dx, vectors);
  });
}

template <class T>
cudaError_t maxPool2d(const PoolShape& s, const T* x, T* y, cudaStream_t stream) {
  return onVectors<T>(s, s.outHeight, s.outWidth, stream, [&](auto v, unsigned vectors, const Launch& at) {
    return launch<maxPool2dKernel<T, decltype(v)::value>>(at, s, x, y, vectors);
  });
}

template <class T>
cudaError_t maxPool2dGrad(const PoolShape& s, const T* x, const T* dy, T* dx, cudaStream_t stream) {
  return onVectors<T>(s, s.height, s.width, stream, [&](auto v, unsigned vectors, const Launch& at) {
    return launch<maxPool2dGradKernel<T, decltype(v)::value>>(at, s, x, dy, dx, vectors);
  });
}

#define REFL_POOL(T)                                                                \
  template cudaError_t avgPool2d(const PoolShape&, const T*, T*, cudaStream_t);     \
  template cudaError_t avgPool2dGrad(const PoolShape&, const T*, T*, cudaStream_t); \
  template cudaError_t maxPool2d(const PoolShape&, const T*, T*, cudaStream_t);     \
  template cudaError_t maxPool2dGrad(const PoolShape&, const T*, const T*, T*, cudaStream_t);
REFL_POOL(float)
REFL_POOL(bf16)
REFL_POOL(f16)

}  // namespace refl::cuda
