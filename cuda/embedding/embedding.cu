// Row lookup: a thread moves one vector of 16 bytes (one element where a row is no whole number of vectors), each read
// once and written once; its index comes from cache after the row's first.
//
// The adjoint gathers: a thread has one vector of a row of the table and looks at every index, `rows * count` of them a
// column of vectors. So a row adds up in the order of the indices, in float32 registers, and nothing is added by two
// threads. Tables that train are small here; sorting the indices would pay from some thousands on.
#include "embedding/embedding.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;

/** A row is `vectors` vectors. */
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    embeddingKernel(const T* __restrict__ table, unsigned rows, unsigned vectors, const int32_t* __restrict__ indices,
                    unsigned count, T* __restrict__ y) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) {
    const unsigned place = i / vectors, row = static_cast<unsigned>(indices[place]);
    Pack<T, V> value;
    if (row < rows) {
      value = load<V>(table + (static_cast<size_t>(row) * vectors + (i - place * vectors)) * V);
    } else {
#pragma unroll
      for (int k = 0; k < V; ++k) value[k] = fromFloat<T>(NAN);
    }
    store(y + static_cast<size_t>(i) * V, value);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    embeddingGradKernel(const int32_t* __restrict__ indices, unsigned count, const T* __restrict__ dy,
                        T* __restrict__ dtable, unsigned vectors, unsigned total) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < total) {
    const unsigned row = i / vectors, vector = i - row * vectors;
    float sum[V] = {};
    for (unsigned k = 0; k < count; ++k) {
      if (static_cast<unsigned>(indices[k]) == row) {
        const Pack<T, V> value = load<V>(dy + (static_cast<size_t>(k) * vectors + vector) * V);
#pragma unroll
        for (int c = 0; c < V; ++c) sum[c] += toFloat(value[c]);
      }
    }
    Pack<T, V> result;
#pragma unroll
    for (int c = 0; c < V; ++c) result[c] = fromFloat<T>(sum[c]);
    store(dtable + static_cast<size_t>(i) * V, result);
  }
}

template <class T, class Fn>
cudaError_t onVectors(unsigned rows, unsigned width, cudaStream_t stream, Fn&& run) {
  const auto with = [&](auto v) {
    const unsigned vectors = width / decltype(v)::value, total = rows * vectors;
    return run(v, vectors, total, Launch{(total + kThreads - 1) / kThreads, kThreads, 0, stream});
  };
  return width % kPack<T> == 0 ? with(std::integral_constant<int, kPack<T>>()) : with(std::integral_constant<int, 1>());
}

}  // namespace

template <class T>
cudaError_t embedding(const T* table, unsigned rows, unsigned width, const int32_t* indices, unsigned count, T* y,
                      cudaStream_t stream) {
  return onVectors<T>(count, width, stream, [&](auto v, unsigned vectors, unsigned total, const Launch& at) {
    return launch<embeddingKernel<T, decltype(v)::value>>(at, table, rows, vectors, indices, total, y);
  });
}

template <class T>
cudaError_t embeddingGrad(const int32_t* indices, unsigned count, const T* dy, T* dtable, unsigned rows, unsigned width,
                          cudaStream_t stream) {
  return onVectors<T>(rows, width, stream, [&](auto v, unsigned vectors, unsigned total, const Launch& at) {
    return launch<embeddingGradKernel<T, decltype(v)::value>>(at, indices, count, dy, dtable, vectors, total);
  });
}

#define REFL_EMBEDDING(T)                                                                                   \
  template cudaError_t embedding(const T*, unsigned, unsigned, const int32_t*, unsigned, T*, cudaStream_t); \
  template cudaError_t embeddingGrad(const int32_t*, unsigned, const T*, T*, unsigned, unsigned, cudaStream_t);
REFL_EMBEDDING(float)
REFL_EMBEDDING(bf16)
REFL_EMBEDDING(f16)

}  // namespace refl::cuda
