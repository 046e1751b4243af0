// The two kernels behind every elementwise operator. An operator is a type with kInputs and the function
// `float apply(op, float...)` in its namespace; both kernels are limited by memory: each operand is read once, the
// result written once, 16 bytes at a time.
//
// flatKernel: operands of the result's size, or of one element. A thread has one vector of 16 bytes; with 2048 threads
// on a multiprocessor that is 32 KiB or more in flight, about twice what hides the latency of HBM. The last vector may
// be short.
//
// broadcastKernel: everything else. A thread has one vector of a row along the innermost axis, and finds its operands'
// offsets by a division for each further axis (some 20 operations). An operand that stays along a row is one value,
// repeated. V is 1 where a row is no whole number of vectors: accesses of 2 or 4 bytes that still coalesce.
//
// Nothing is marked __restrict__: a result may take over an operand's memory, whose elements the thread that writes
// them has read before.
#pragma once
#include "elementwise/elementwise.h"
#include "simt/simt.h"

namespace refl::cuda {

constexpr int kMapThreads = 256;

/** op of the k-th elements of its operands' vectors. */
template <class Op, class T, int V>
__device__ __forceinline__ T applied(const Op& op, const simt::Pack<T, V> (&x)[Op::kInputs], int k) {
  using simt::toFloat;
  if constexpr (Op::kInputs == 1)
    return simt::fromFloat<T>(apply(op, toFloat(x[0][k])));
  else if constexpr (Op::kInputs == 2)
    return simt::fromFloat<T>(apply(op, toFloat(x[0][k]), toFloat(x[1][k])));
  else
    return simt::fromFloat<T>(apply(op, toFloat(x[0][k]), toFloat(x[1][k]), toFloat(x[2][k])));
}

template <int V, class T>
__device__ __forceinline__ simt::Pack<T, V> splat(T value) {
  simt::Pack<T, V> all;
#pragma unroll
  for (int k = 0; k < V; ++k) all[k] = value;
  return all;
}

template <class Op, class T>
__global__ void __launch_bounds__(kMapThreads)
    flatKernel(const Op op, const Inputs<T, Op::kInputs> in, T* y, unsigned count) {
  constexpr int V = simt::kPack<T>, K = Op::kInputs;
  const unsigned at = (blockIdx.x * kMapThreads + threadIdx.x) * V;
  if (at + V <= count) {
    simt::Pack<T, V> x[K], result;
#pragma unroll
    for (int k = 0; k < K; ++k) x[k] = in.repeats[k] ? splat<V>(*in.at[k]) : simt::load<V>(in.at[k] + at);
#pragma unroll
    for (int i = 0; i < V; ++i) result[i] = applied(op, x, i);
    simt::store(y + at, result);
  } else {
#pragma unroll 1
    for (unsigned i = at; i < count; ++i) {
      simt::Pack<T, 1> x[K];
#pragma unroll
      for (int k = 0; k < K; ++k) x[k][0] = in.at[k][in.repeats[k] ? 0 : i];
      y[i] = applied(op, x, 0);
    }
  }
}

/** `vectors` of V elements; layout.extent[0] counts vectors. */
template <class Op, class T, int V>
__global__ void __launch_bounds__(kMapThreads)
    broadcastKernel(const Op op, const Inputs<T, Op::kInputs> in, const __grid_constant__ Layout<Op::kInputs> layout,
                    T* y, unsigned vectors) {
  constexpr int K = Op::kInputs;
  const unsigned vector = blockIdx.x * kMapThreads + threadIdx.x;
  if (vector < vectors) {
    unsigned rest = vector / layout.extent[0], offset[K];
#pragma unroll
    for (int k = 0; k < K; ++k) offset[k] = (vector - rest * layout.extent[0]) * V * layout.stride[k][0];
#pragma unroll 1
    for (int axis = 1; axis < layout.axes; ++axis) {
      const unsigned next = rest / layout.extent[axis], place = rest - next * layout.extent[axis];
      rest = next;
#pragma unroll
      for (int k = 0; k < K; ++k) offset[k] += place * layout.stride[k][axis];
    }
    simt::Pack<T, V> x[K], result;
#pragma unroll
    for (int k = 0; k < K; ++k)
      x[k] = in.repeats[k] ? splat<V>(in.at[k][offset[k]]) : simt::load<V>(in.at[k] + offset[k]);
#pragma unroll
    for (int i = 0; i < V; ++i) result[i] = applied(op, x, i);
    simt::store(y + static_cast<size_t>(vector) * V, result);
  }
}

template <class Op, class T>
cudaError_t map(const Op& op, const Inputs<T, Op::kInputs>& in, T* y, unsigned count, cudaStream_t stream) {
  constexpr unsigned kPerBlock = kMapThreads * simt::kPack<T>;
  return simt::launch<flatKernel<Op, T>>({(count + kPerBlock - 1) / kPerBlock, kMapThreads, 0, stream}, op, in, y,
                                         count);
}

template <class Op, class T>
cudaError_t mapBroadcast(const Op& op, const Layout<Op::kInputs>& layout, const T* const (&in)[Op::kInputs], T* y,
                         cudaStream_t stream) {
  constexpr int V = simt::kPack<T>, K = Op::kInputs;
  Inputs<T, K> inputs = {};
  unsigned count = 1;
  for (int axis = 0; axis < layout.axes; ++axis) count *= layout.extent[axis];
  for (int k = 0; k < K; ++k) {
    inputs.at[k] = in[k];
    inputs.repeats[k] = layout.stride[k][0] == 0;
  }
  if (layout.axes == 1) return map(op, inputs, y, count, stream);
  const auto run = [&](auto width) {
    constexpr unsigned kWidth = decltype(width)::value;
    const unsigned vectors = count / kWidth;
    Layout<K> rows = layout;
    rows.extent[0] /= kWidth;
    return simt::launch<broadcastKernel<Op, T, kWidth>>(
        {(vectors + kMapThreads - 1) / kMapThreads, kMapThreads, 0, stream}, op, inputs, rows, y, vectors);
  };
  return layout.extent[0] % V == 0 ? run(std::integral_constant<int, V>()) : run(std::integral_constant<int, 1>());
}

}  // namespace refl::cuda
