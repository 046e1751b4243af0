// How the kernels of this family cut their work: blocks of 256 threads, chunks of pixels or rows, vectors of channels.
#pragma once
#include "simt/simt.h"

namespace refl::cuda {

constexpr int kThreads = 256, kWarps = kThreads / 32;

/** The sum of v over the block, in the same order for all threads. `partial` is this sum's own: no barrier follows its
 * use. */
__device__ __forceinline__ float blockSum(float v, float* partial) {
  v = simt::warpSum(v);
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = v;
  __syncthreads();
  float total = 0;
#pragma unroll
  for (int i = 0; i < kWarps; ++i) total += partial[i];
  return total;
}

/** V floats, at a multiple of so many up to 4. One by one, lanes with neighbouring vectors would read 4 V bytes apart,
 * and each access would touch V times the cache lines. */
template <int V>
__device__ __forceinline__ void loadFloats(const float* from, float (&to)[V]) {
  constexpr int kWide = V < 4 ? V : 4;
#pragma unroll
  for (int k = 0; k < V; k += kWide) {
    const simt::Pack<float, kWide> part = simt::load<kWide>(from + k);
#pragma unroll
    for (int j = 0; j < kWide; ++j) to[k + j] = part[j];
  }
}

/** How pixels, or rows, are cut: pixels of a chunk, the last one shorter. At most 128 chunks. */
struct Chunks {
  int pixels, count;
  explicit Chunks(int all) {
    constexpr int kMost = 128, kLeastPixels = 16;
    pixels = (all + kMost - 1) / kMost;
    pixels = pixels < kLeastPixels ? kLeastPixels : pixels;
    count = (all + pixels - 1) / pixels;
  }
};

/** fn(V) with the widest vector, up to 16 bytes, that divides `channels` and that the addresses allow. */
template <class T, class Fn>
cudaError_t withVector(int channels, std::initializer_list<const void*> addresses, Fn&& fn) {
  size_t address = 0;
  for (const void* at : addresses) address |= reinterpret_cast<size_t>(at);
  const auto fits = [&](int v) { return channels % v == 0 && address % (v * sizeof(T)) == 0; };
  if constexpr (sizeof(T) == 2) {
    if (fits(8)) return fn(std::integral_constant<int, 8>());
  }
  if (fits(4)) return fn(std::integral_constant<int, 4>());
  if (fits(2)) return fn(std::integral_constant<int, 2>());
  return fn(std::integral_constant<int, 1>());
}

}  // namespace refl::cuda
