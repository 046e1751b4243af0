// Two kernels, limited by memory: each element is read once, one operation an element.
//
// rowsKernel: contiguous rows (inner is 1). A warp has a row, or a block of 256 threads a part of one that has more
// than 1024 elements; a thread takes vectors of 16 bytes where rows are whole vectors.
//
// columnsKernel: everything else. A block has up to 32 vectors of columns beside each other and as many rows of threads
// as make 256; each thread goes down its columns, then the rows of threads are folded in halves. Vectors are 16 bytes
// where inner is a whole number of them.
//
// What is folded is a float32 sum, or for the largest element an integer that is ordered as the numbers are, with NaN
// above all, and its place where that is asked for. The order of the sums depends on the shape alone.
#include <climits>

#include "reduce/reduce.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr unsigned kThreads = 256, kWarps = kThreads / 32;
constexpr unsigned kShort = 1024;   // row that one warp does
constexpr unsigned kPart = 8192;    // elements that are worth a block
constexpr unsigned kEnough = 1024;  // blocks that keep any chip busy

struct Sum {
  using Value = float;
  static __device__ __forceinline__ float start() { return 0.0f; }
  static __device__ __forceinline__ float of(float x, unsigned) { return x; }
  static __device__ __forceinline__ float join(float a, float b) { return a + b; }
  static __device__ __forceinline__ float overWarp(float v) { return warpSum(v); }
  template <class To>
  static __device__ __forceinline__ To result(float v) {
    return fromFloat<To>(v);
  }
};

struct Max {
  using Value = int;
  static constexpr int kNan = 0x7fffffff;
  static __device__ __forceinline__ int start() { return of(-INFINITY, 0); }
  // Negative numbers have their magnitude's bits turned over: then all are ordered as integers.
  static __device__ __forceinline__ int of(float x, unsigned) {
    const int bits = static_cast<int>(asBits(x));
    return x != x ? kNan : bits ^ (bits >> 31 & 0x7fffffff);
  }
  static __device__ __forceinline__ int join(int a, int b) { return max(a, b); }
  static __device__ __forceinline__ int overWarp(int v) { return warpMax(v); }
  template <class To>
  static __device__ __forceinline__ To result(int v) {
    return fromFloat<To>(asFloat(static_cast<uint32_t>(v == kNan ? v : v ^ (v >> 31 & 0x7fffffff))));
  }
};

struct Place {
  struct Value {
    int most, at;
  };
  // Behind every element, so that an element of -inf wins.
  static __device__ __forceinline__ Value start() { return {Max::start(), INT_MAX}; }
  static __device__ __forceinline__ Value of(float x, unsigned at) {
    return {Max::of(x + 0.0f, at), static_cast<int>(at)};  // -0 is no less than 0
  }
  static __device__ __forceinline__ Value join(Value a, Value b) {
    const bool wins = (b.most > a.most) | ((b.most == a.most) & (b.at < a.at));  // no branches
    return {wins ? b.most : a.most, wins ? b.at : a.at};
  }
  static __device__ __forceinline__ Value overWarp(Value v) {
    const int most = warpMax(v.most);
    return {most, -warpMax(v.most == most ? -v.at : -INT_MAX)};
  }
  template <class To>
  static __device__ __forceinline__ To result(Value v) {
    return v.at;
  }
};

/** A group of kGroup threads, a warp or the block, has `each` elements of a row, of which the last part has fewer. */
template <class Op, class From, class To, int V, int kGroup>
__global__ void __launch_bounds__(kThreads) rowsKernel(const From* __restrict__ x, unsigned rows, unsigned width,
                                                       unsigned parts, unsigned each, To* __restrict__ y) {
  const unsigned place = blockIdx.x * (kThreads / kGroup) + threadIdx.x / kGroup;
  const unsigned row = place / parts, first = (place - row * parts) * each;
  if (row < rows) {
    x += static_cast<size_t>(row) * width;
    const unsigned last = min(width, first + each);
    typename Op::Value all = Op::start();
#pragma unroll 4
    for (unsigned i = first + threadIdx.x % kGroup * V; i < last; i += kGroup * V) {
      const Pack<From, V> v = load<V>(x + i);
#pragma unroll
      for (int k = 0; k < V; ++k) all = Op::join(all, Op::of(toFloat(v[k]), i + k));
    }
    all = Op::overWarp(all);
    if constexpr (kGroup > 32) {
      SIMT_SHARED(typename Op::Value, warps, [kWarps]);
      if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = all;
      __syncthreads();
      all = warps[0];
      for (unsigned i = 1; i < kWarps; ++i) all = Op::join(all, warps[i]);
    }
    if (threadIdx.x % kGroup == 0) y[place] = Op::template result<To>(all);
  }
}

/** `across` vectors beside each other, a power of two up to 32; `tiles` of them make a row. */
template <class Op, class From, class To, int V>
__global__ void __launch_bounds__(kThreads)
    columnsKernel(const From* __restrict__ x, const Middle shape, unsigned parts, unsigned across, unsigned tiles,
                  To* __restrict__ y) {
  SIMT_SHARED(typename Op::Value, partial, [V][kThreads]);
  const unsigned place = blockIdx.x / tiles, outer = place / parts, part = place - outer * parts;
  const unsigned column = ((blockIdx.x - place * tiles) * across + threadIdx.x % across) * V;
  const unsigned each = (shape.count + parts - 1) / parts, down = kThreads / across, row = threadIdx.x / across;
  const unsigned last = min(shape.count, (part + 1) * each);
  typename Op::Value all[V];
#pragma unroll
  for (int k = 0; k < V; ++k) all[k] = Op::start();
  if (column < shape.inner) {
    const From* from = x + static_cast<size_t>(outer) * shape.count * shape.inner + column;
#pragma unroll 4
    for (unsigned i = part * each + row; i < last; i += down) {
      const Pack<From, V> v = load<V>(from + static_cast<size_t>(i) * shape.inner);
#pragma unroll
      for (int k = 0; k < V; ++k) all[k] = Op::join(all[k], Op::of(toFloat(v[k]), i));
    }
  }
#pragma unroll
  for (int k = 0; k < V; ++k) partial[k][threadIdx.x] = all[k];
  __syncthreads();
  for (unsigned half = kThreads / 2; half >= across; half /= 2) {
    if (threadIdx.x < half) {
#pragma unroll
      for (int k = 0; k < V; ++k)
        partial[k][threadIdx.x] = Op::join(partial[k][threadIdx.x], partial[k][threadIdx.x + half]);
    }
    __syncthreads();
  }
  if (row == 0 && column < shape.inner) {
    constexpr int kWide = V < kPack<To> ? V : kPack<To>;
    y += static_cast<size_t>(place) * shape.inner + column;
#pragma unroll
    for (int k = 0; k < V; k += kWide) {
      Pack<To, kWide> result;
#pragma unroll
      for (int j = 0; j < kWide; ++j) result[j] = Op::template result<To>(partial[k + j][threadIdx.x]);
      store(y + k, result);
    }
  }
}

template <class Op, int V, class From, class To>
cudaError_t runRows(const Middle& s, unsigned parts, const From* x, To* y, cudaStream_t stream) {
  if (s.count <= kShort) {
    const Launch at = {(s.outer + kWarps - 1) / kWarps, kThreads, 0, stream};
    return launch<rowsKernel<Op, From, To, V, 32>>(at, x, s.outer, s.count, parts, s.count, y);
  }
  const unsigned vectors = s.count / V, each = (vectors + parts - 1) / parts * V;
  const Launch at = {s.outer * parts, kThreads, 0, stream};
  return launch<rowsKernel<Op, From, To, V, kThreads>>(at, x, s.outer, s.count, parts, each, y);
}

template <class Op, int V, class From, class To>
cudaError_t runColumns(const Middle& s, unsigned parts, const From* x, To* y, cudaStream_t stream) {
  unsigned across = 1;
  while (across < 32 && across * V < s.inner) across *= 2;
  const unsigned tiles = (s.inner + across * V - 1) / (across * V);
  const Launch at = {s.outer * parts * tiles, kThreads, 0, stream};
  return launch<columnsKernel<Op, From, To, V>>(at, x, s, parts, across, tiles, y);
}

template <class Op, class From, class To>
cudaError_t run(const Middle& s, unsigned parts, const From* x, To* y, cudaStream_t stream) {
  constexpr int V = kPack<From>;
  if (s.inner == 1)
    return s.count % V == 0 ? runRows<Op, V>(s, parts, x, y, stream) : runRows<Op, 1>(s, parts, x, y, stream);
  return s.inner % V == 0 ? runColumns<Op, V>(s, parts, x, y, stream) : runColumns<Op, 1>(s, parts, x, y, stream);
}

}  // namespace

unsigned reduceParts(const Middle& s) {
  if (s.inner == 1 && s.count <= kShort) return 1;
  const unsigned blocks = s.outer * ((s.inner + 255) / 256), wanted = (kEnough + blocks - 1) / blocks;
  const unsigned inner = s.inner < 256 ? s.inner : 256, worth = s.count / ((kPart + inner - 1) / inner);
  const unsigned parts = worth < wanted ? worth : wanted;
  return parts ? parts : 1;
}

template <class From, class To>
cudaError_t reduce(Reduction op, const Middle& shape, const From* x, To* y, cudaStream_t stream) {
  const unsigned parts = reduceParts(shape);
  return op == Reduction::sum ? run<Sum>(shape, parts, x, y, stream) : run<Max>(shape, parts, x, y, stream);
}

template <class T>
cudaError_t argmax(const Middle& shape, const T* x, int32_t* y, cudaStream_t stream) {
  return run<Place>(shape, 1, x, y, stream);
}

#define REFL_REDUCE(From, To) template cudaError_t reduce(Reduction, const Middle&, const From*, To*, cudaStream_t);
REFL_REDUCE(float, float)
REFL_REDUCE(float, bf16)
REFL_REDUCE(float, f16)
REFL_REDUCE(bf16, bf16)
REFL_REDUCE(bf16, float)
REFL_REDUCE(f16, f16)
REFL_REDUCE(f16, float)
template cudaError_t argmax(const Middle&, const float*, int32_t*, cudaStream_t);
template cudaError_t argmax(const Middle&, const bf16*, int32_t*, cudaStream_t);
template cudaError_t argmax(const Middle&, const f16*, int32_t*, cudaStream_t);

}  // namespace refl::cuda
