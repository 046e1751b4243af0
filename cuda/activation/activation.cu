// Activations and their gradients. Those of one tensor run in map.h's kernels. The gradients take x and not the output:
// one exponential an element either way, and x is what the layer before keeps anyway. Operations an element in 16 bits:
// silu 6, its gradient 10, gelu 22, its gradient 25; in float32, with the exact exponential and division, twice as
// many. At 4 to 6 bytes an element memory still is the limit.
//
// gegluKernel reads 2n and writes n elements a row, gegluGradKernel reads 3n and writes 2n; one evaluation of the
// normal distribution serves both halves of a gradient. A thread has a vector of 16 bytes of each, or one element where
// a row's half is no whole number of vectors. The result never lies in an operand's memory.
#include "activation/activation.h"
#include "activation/functions.h"
#include "elementwise/map.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;
constexpr float kQuick = 1.702f;

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    gegluKernel(const T* __restrict__ x, T* __restrict__ y, unsigned vectors, unsigned perRow) {
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector < vectors) {
    const T* at = x + static_cast<size_t>(vector + vector / perRow * perRow) * V;
    const Pack<T, V> a = load<V>(at), b = load<V>(at + perRow * V);
    Pack<T, V> result;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float gate = toFloat(b[k]);
      result[k] = fromFloat<T>(toFloat(a[k]) * (gate * normal<T>(gate).cdf));
    }
    store(y + static_cast<size_t>(vector) * V, result);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) gegluGradKernel(const T* __restrict__ x, const T* __restrict__ dy,
                                                            T* __restrict__ dx, unsigned vectors, unsigned perRow) {
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector < vectors) {
    const size_t at = static_cast<size_t>(vector + vector / perRow * perRow) * V;
    const Pack<T, V> a = load<V>(x + at), b = load<V>(x + at + perRow * V);
    const Pack<T, V> d = load<V>(dy + static_cast<size_t>(vector) * V);
    Pack<T, V> da, db;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float gate = toFloat(b[k]), g = toFloat(d[k]);
      const NormalAt n = normal<T>(gate);
      da[k] = fromFloat<T>(g * (gate * n.cdf));
      db[k] = fromFloat<T>(g * toFloat(a[k]) * fmaf(gate, n.pdf, n.cdf));
    }
    store(dx + at, da);
    store(dx + at + perRow * V, db);
  }
}

/** fn(V, blocks, vectors, vectors of a row's half). */
template <class T, class Fn>
cudaError_t withRows(unsigned rows, unsigned width, Fn&& fn) {
  const auto run = [&](auto v) {
    const unsigned perRow = width / decltype(v)::value, vectors = rows * perRow;
    return fn(v, (vectors + kThreads - 1) / kThreads, vectors, perRow);
  };
  return width % kPack<T> == 0 ? run(std::integral_constant<int, kPack<T>>()) : run(std::integral_constant<int, 1>());
}

}  // namespace

template <class T>
__device__ __forceinline__ float apply(const Silu<T>&, float x) {
  return x * sigmoid<T>(x);
}
template <class T>
__device__ __forceinline__ float apply(const SiluGrad<T>&, float x, float dy) {
  return dy * gatedSlope<T>(x, 1.0f);
}
template <class T>
__device__ __forceinline__ float apply(const Gelu<T>&, float x) {
  return x * normal<T>(x).cdf;
}
template <class T>
__device__ __forceinline__ float apply(const GeluGrad<T>&, float x, float dy) {
  const NormalAt n = normal<T>(x);
  return dy * fmaf(x, n.pdf, n.cdf);
}
template <class T>
__device__ __forceinline__ float apply(const QuickGelu<T>&, float x) {
  return x * sigmoid<T>(kQuick * x);
}
template <class T>
__device__ __forceinline__ float apply(const QuickGeluGrad<T>&, float x, float dy) {
  return dy * gatedSlope<T>(x, kQuick);
}

template <class T>
cudaError_t geglu(const T* x, T* y, unsigned rows, unsigned width, cudaStream_t stream) {
  return withRows<T>(rows, width, [&](auto v, unsigned blocks, unsigned vectors, unsigned perRow) {
    return launch<gegluKernel<T, decltype(v)::value>>({blocks, kThreads, 0, stream}, x, y, vectors, perRow);
  });
}

template <class T>
cudaError_t gegluGrad(const T* x, const T* dy, T* dx, unsigned rows, unsigned width, cudaStream_t stream) {
  return withRows<T>(rows, width, [&](auto v, unsigned blocks, unsigned vectors, unsigned perRow) {
    return launch<gegluGradKernel<T, decltype(v)::value>>({blocks, kThreads, 0, stream}, x, dy, dx, vectors, perRow);
  });
}

#define REFL_MAP(Op, T) \
  template cudaError_t map(const Op<T>&, const Inputs<T, Op<T>::kInputs>&, T*, unsigned, cudaStream_t);
#define REFL_ACTIVATION(T)                                                    \
  REFL_MAP(Silu, T)                                                           \
  REFL_MAP(SiluGrad, T)                                                       \
  REFL_MAP(Gelu, T)                                                           \
  REFL_MAP(GeluGrad, T)                                                       \
  REFL_MAP(QuickGelu, T)                                                      \
  REFL_MAP(QuickGeluGrad, T)                                                  \
  template cudaError_t geglu(const T*, T*, unsigned, unsigned, cudaStream_t); \
  template cudaError_t gegluGrad(const T*, const T*, T*, unsigned, unsigned, cudaStream_t);
REFL_ACTIVATION(float)
REFL_ACTIVATION(bf16)
REFL_ACTIVATION(f16)

}  // namespace refl::cuda
