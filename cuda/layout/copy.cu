// Rows copied into wider rows. Limited by memory: a thread moves one unit of up to 16 bytes, each read once and written
// once.
#include "layout/layout.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;

/** `width`, `stride` and `column` count units of N elements. */
template <class E, int N>
__global__ void __launch_bounds__(kThreads) copyRowsKernel(const E* __restrict__ x, unsigned count, unsigned width,
                                                           E* __restrict__ y, unsigned stride, unsigned column) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) {
    const unsigned row = i / width;
    const size_t to = static_cast<size_t>(row) * stride + column + (i - row * width);
    store(y + to * N, load<N>(x + static_cast<size_t>(i) * N));
  }
}

}  // namespace

cudaError_t copyRows(const void* x, unsigned rows, size_t width, void* y, size_t stride, size_t column,
                     cudaStream_t stream) {
  const auto run = [&](auto element, auto elements) {
    using E = decltype(element);
    constexpr int N = decltype(elements)::value;
    constexpr size_t kBytes = sizeof(E) * N;
    const auto units = static_cast<unsigned>(width / kBytes), count = rows * units;
    return launch<copyRowsKernel<E, N>>({(count + kThreads - 1) / kThreads, kThreads, 0, stream},
                                        static_cast<const E*>(x), count, units, static_cast<E*>(y),
                                        static_cast<unsigned>(stride / kBytes), static_cast<unsigned>(column / kBytes));
  };
  const size_t all = width | stride | column;
  if (all % 16 == 0) return run(uint32_t(), std::integral_constant<int, 4>());
  if (all % 4 == 0) return run(uint32_t(), std::integral_constant<int, 1>());
  if (all % 2 == 0) return run(uint16_t(), std::integral_constant<int, 1>());
  return run(uint8_t(), std::integral_constant<int, 1>());
}

}  // namespace refl::cuda
