// Limited by memory: each unit of the result is written once and the unit of x that it comes from is read once; where x
// is strided, neighbours in a sector are read by neighbouring warps and come from L1. A thread moves one unit of 1 to
// 16 bytes, so a warp's stores are whole sectors from 1-byte units on and whole lines from 4-byte units on. Each axis
// but the outermost costs a division, about 20 operations.
#include "layout/gather.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;

/** The index along x's axis, or -1 for a zero. */
__device__ __forceinline__ int source(const GatherAxis& axis, unsigned place) {
  const int at = static_cast<int>(place) + axis.start, count = static_cast<int>(axis.count);
  switch (axis.edge) {
    case Edge::zero:
      return at < count ? max(at, -1) : -1;
    case Edge::wrap:
      return at < 0 ? at + count : at;
    case Edge::mirror:
      return min(abs(at), 2 * (count - 1) - at);
    case Edge::clamp:
      return min(max(at, 0), count - 1);
    case Edge::scale:
      return static_cast<int>(static_cast<uint64_t>(place) * axis.count / axis.extent);
    default:
      return at;
  }
}

template <class E, int N>
__global__ void __launch_bounds__(kThreads)
    gatherKernel(const __grid_constant__ Gather gather, const E* __restrict__ x, E* __restrict__ y, unsigned count) {
  const unsigned i = blockIdx.x * kThreads + threadIdx.x;
  if (i < count) {
    unsigned rest = i, offset = 0;
    bool zero = false;
#pragma unroll 1
    for (int k = 0; k < gather.axes; ++k) {
      const unsigned next = rest / gather.axis[k].extent;
      const int from = source(gather.axis[k], rest - next * gather.axis[k].extent);
      rest = next;
      zero = zero || from < 0;
      offset += static_cast<unsigned>(from) * gather.axis[k].stride;
    }
    Pack<E, N> unit = {};
    if (!zero) unit = load<N>(x + static_cast<size_t>(offset) * N);
    store(y + static_cast<size_t>(i) * N, unit);
  }
}

template <class E, int N>
cudaError_t run(const Gather& gather, const void* x, void* y, cudaStream_t stream) {
  const unsigned count = gather.count();
  return launch<gatherKernel<E, N>>({(count + kThreads - 1) / kThreads, kThreads, 0, stream}, gather,
                                    static_cast<const E*>(x), static_cast<E*>(y), count);
}

}  // namespace

cudaError_t gatherElements(const Gather& gather, const void* x, void* y, cudaStream_t stream) {
  if (gather.bytes == 1) return run<uint8_t, 1>(gather, x, y, stream);
  if (gather.bytes == 2) return run<uint16_t, 1>(gather, x, y, stream);
  if (gather.bytes == 4) return run<uint32_t, 1>(gather, x, y, stream);
  if (gather.bytes == 8) return run<uint32_t, 2>(gather, x, y, stream);
  return run<uint32_t, 4>(gather, x, y, stream);
}

}  // namespace refl::cuda
