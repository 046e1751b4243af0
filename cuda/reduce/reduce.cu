// Two kernels, limited by memory: each element is read once, one operation an element.
//
// rowsKernel: short contiguous rows (inner is 1). A warp has a row; a thread takes vectors of 16 bytes where rows are
// whole vectors.
//
// columnsKernel: everything else. A block has up to 32 vectors of columns beside each other and as many rows of threads
// as make 256; each thread goes down its columns, then the rows of threads are folded in halves. Vectors are 16 bytes
// where inner is a whole number of them; with inner 1 a block's threads go along one row.
//
// What is folded is a float32 sum, or for the largest element an integer that is ordered as the numbers are, with NaN
// above all. The order of the sums depends on the shape alone.
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
  static __device__ __forceinline__ float of(float x) { return x; }
  static __device__ __forceinline__ float join(float a, float b) { return a + b; }
  static __device__ __forceinline__ float overWarp(float v) { return warpSum(v); }
  static __device__ __forceinline__ float result(float v) { return v; }
};

struct Max {
  using Value = int;
  static constexpr int kNan = 0x7fffffff;
  static __device__ __forceinline__ int start() { return of(-INFINITY); }
  // Negative numbers have their magnitude's bits turned over: then all are ordered as integers.
  static __device__ __forceinline__ int of(float x) {
    const int bits = static_cast<int>(asBits(x));
    return x != x ? kNan : bits ^ (bits >> 31 & 0x7fffffff);
  }
  static __device__ __forceinline__ int join(int a, int b) { return max(a, b); }
  static __device__ __forceinline__ int overWarp(int v) { return warpMax(v); }
  static __device__ __forceinline__ float result(int v) {
    return asFloat(static_cast<uint32_t>(v == kNan ? v : v ^ (v >> 31 & 0x7fffffff)));
  }
};

template <class Op, class From, class To, int V>
__global__ void __launch_bounds__(kThreads)
    rowsKernel(const From* __restrict__ x, unsigned rows, unsigned width, To* __restrict__ y) {
  const unsigned row = blockIdx.x * kWarps + threadIdx.x / 32;
  if (row < rows) {
    x += static_cast<size_t>(row) * width;
    typename Op::Value all = Op::start();
    for (unsigned i = threadIdx.x % 32 * V; i < width; i += 32 * V) {
      const Pack<From, V> v = load<V>(x + i);
#pragma unroll
      for (int k = 0; k < V; ++k) all = Op::join(all, Op::of(toFloat(v[k])));
    }
    all = Op::overWarp(all);
    if (threadIdx.x % 32 == 0) y[row] = fromFloat<To>(Op::result(all));
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
    for (unsigned i = part * each + row; i < last; i += down) {
      const Pack<From, V> v = load<V>(from + static_cast<size_t>(i) * shape.inner);
#pragma unroll
      for (int k = 0; k < V; ++k) all[k] = Op::join(all[k], Op::of(toFloat(v[k])));
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
    Pack<To, V> result;
#pragma unroll
    for (int k = 0; k < V; ++k) result[k] = fromFloat<To>(Op::result(partial[k][threadIdx.x]));
    store(y + static_cast<size_t>(place) * shape.inner + column, result);
  }
}

// A thread has a result and goes along its elements: neighbours read neighbours where inner is not 1.
template <class T>
__global__ void __launch_bounds__(kThreads)
    argmaxKernel(const T* __restrict__ x, const Middle shape, int32_t* __restrict__ y) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < shape.outer * shape.inner) {
    const unsigned outer = i / shape.inner;
    x += static_cast<size_t>(outer) * shape.count * shape.inner + (i - outer * shape.inner);
    int best = 0, most = Max::of(toFloat(x[0]) + 0.0f);
    for (unsigned k = 1; k < shape.count; ++k) {
      const int value = Max::of(toFloat(x[static_cast<size_t>(k) * shape.inner]) + 0.0f);  // -0 is no less than 0
      if (value > most) {
        most = value;
        best = static_cast<int>(k);
      }
    }
    y[i] = best;
  }
}

template <class Op, class From, class To>
cudaError_t run(const Middle& s, const From* x, To* y, cudaStream_t stream) {
  // A result's vector is no wider than 16 bytes either.
  constexpr int kWide = kPack<From> < kPack<To> ? kPack<From> : kPack<To>;
  const auto with = [&](auto v) {
    constexpr int V = decltype(v)::value;
    if (s.inner == 1 && s.count <= kShort) {
      const Launch at = {(s.outer + kWarps - 1) / kWarps, kThreads, 0, stream};
      return launch<rowsKernel<Op, From, To, V>>(at, x, s.outer, s.count, y);
    }
    unsigned across = 1;
    while (across < 32 && across * V < s.inner) across *= 2;
    const unsigned tiles = (s.inner + across * V - 1) / (across * V), parts = reduceParts(s);
    const Launch at = {s.outer * parts * tiles, kThreads, 0, stream};
    return launch<columnsKernel<Op, From, To, V>>(at, x, s, parts, across, tiles, y);
  };
  const unsigned run = s.inner == 1 && s.count <= kShort ? s.count : s.inner;
  return run % kWide == 0 ? with(std::integral_constant<int, kWide>()) : with(std::integral_constant<int, 1>());
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
  return op == Reduction::sum ? run<Sum>(shape, x, y, stream) : run<Max>(shape, x, y, stream);
}

template <class T>
cudaError_t argmax(const Middle& s, const T* x, int32_t* y, cudaStream_t stream) {
  const unsigned results = s.outer * s.inner;
  return launch<argmaxKernel<T>>({(results + kThreads - 1) / kThreads, kThreads, 0, stream}, x, s, y);
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
