// Casts among float, bf16, f16, int32_t and uint8_t, and filling. Both are limited by memory: a thread of a cast has as
// many elements as are 16 bytes of the wider type; a thread of a fill writes 16 bytes.
#include <climits>

#include "elementwise/elementwise.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;

// A conversion of what is out of range would be undefined in C++, so the bounds are applied before it.
template <class To, class From>
__device__ __forceinline__ To converted(From x) {
  if constexpr (std::is_same_v<To, From>) {
    return x;
  } else if constexpr (std::is_same_v<From, int32_t> && std::is_same_v<To, uint8_t>) {
    return static_cast<uint8_t>(min(max(x, 0), 255));
  } else if constexpr (std::is_same_v<From, uint8_t> && std::is_same_v<To, int32_t>) {
    return x;
  } else if constexpr (std::is_integral_v<From>) {
    return fromFloat<To>(static_cast<float>(x));
  } else if constexpr (std::is_same_v<To, uint8_t>) {
    return static_cast<uint8_t>(static_cast<int>(min(max(toFloat(x), 0.0f), 255.0f)));  // max(NaN, 0) is 0
  } else if constexpr (std::is_same_v<To, int32_t>) {
    const float v = toFloat(x);
    return v != v ? 0 : v >= 0x1p31f ? INT_MAX : static_cast<int>(max(v, -0x1p31f));
  } else {
    return fromFloat<To>(toFloat(x));
  }
}

template <class From, class To>
__global__ void __launch_bounds__(kThreads) castKernel(const From* __restrict__ x, To* __restrict__ y, unsigned count) {
  constexpr int V = kPack<From> < kPack<To> ? kPack<From> : kPack<To>;
  const unsigned at = (blockIdx.x * kThreads + threadIdx.x) * V;
  if (at + V <= count) {
    const Pack<From, V> from = load<V>(x + at);
    Pack<To, V> to;
#pragma unroll
    for (int k = 0; k < V; ++k) to[k] = converted<To>(from[k]);
    store(y + at, to);
  } else {
    for (unsigned i = at; i < count; ++i) y[i] = converted<To>(x[i]);
  }
}

__global__ void __launch_bounds__(kThreads) fillKernel(uint32_t pattern, unsigned char* y, size_t bytes) {
  const size_t at = (static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x) * 16;
  if (at + 16 <= bytes) {
    store(reinterpret_cast<uint32_t*>(y + at), Pack<uint32_t, 4>{{pattern, pattern, pattern, pattern}});
  } else {
    for (size_t i = at; i < bytes; ++i) y[i] = static_cast<unsigned char>(pattern >> (i % 4 * 8));
  }
}

}  // namespace

template <class From, class To>
cudaError_t castElements(const From* x, To* y, unsigned count, cudaStream_t stream) {
  constexpr unsigned kPerBlock = kThreads * (kPack<From> < kPack<To> ? kPack<From> : kPack<To>);
  return launch<castKernel<From, To>>({(count + kPerBlock - 1) / kPerBlock, kThreads, 0, stream}, x, y, count);
}

cudaError_t fill(uint32_t pattern, void* y, size_t bytes, cudaStream_t stream) {
  constexpr size_t kPerBlock = kThreads * 16;
  const auto blocks = static_cast<unsigned>((bytes + kPerBlock - 1) / kPerBlock);
  return launch<fillKernel>({blocks, kThreads, 0, stream}, pattern, static_cast<unsigned char*>(y), bytes);
}

#define REFL_CAST(From, To) template cudaError_t castElements(const From*, To*, unsigned, cudaStream_t);
#define REFL_CASTS(From) \
  REFL_CAST(From, float) REFL_CAST(From, bf16) REFL_CAST(From, f16) REFL_CAST(From, int32_t) REFL_CAST(From, uint8_t)
REFL_CASTS(float)
REFL_CASTS(bf16)
REFL_CASTS(f16)
REFL_CASTS(int32_t)
REFL_CASTS(uint8_t)

}  // namespace refl::cuda
