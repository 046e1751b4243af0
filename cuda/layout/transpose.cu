// Transposition through tiles of 64 x 64 elements in shared memory: memory is read along the rows of x and written
// along the columns of y in runs of a tile's side (128 bytes of a 16-bit type), each element once. Rows of a tile are
// padded by one element, so that the elements of a column lie in different banks.
#include "layout/layout.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kSide = 64, kThreads = 256;

template <class E>
__global__ void __launch_bounds__(kThreads)
    transposeKernel(const __grid_constant__ Transpose t, const E* __restrict__ x, E* __restrict__ y) {
  SIMT_SHARED(E, tile, [kSide][kSide + 1]);
  const unsigned down = (t.rows + kSide - 1) / kSide, across = (t.columns + kSide - 1) / kSide;
  unsigned rest = blockIdx.x / across;
  const unsigned column = (blockIdx.x - rest * across) * kSide, row = rest % down * kSide;
  rest /= down;
  unsigned from = row + column * t.columnStride, to = row * t.rowStride + column;
#pragma unroll 1
  for (int k = 0; k < t.outer; ++k) {
    const unsigned next = rest / t.extent[k], place = rest - next * t.extent[k];
    rest = next;
    from += place * t.from[k];
    to += place * t.to[k];
  }
  const unsigned lane = threadIdx.x % kSide, first = threadIdx.x / kSide;
  const unsigned wide = min(t.rows - row, kSide + 0u), high = min(t.columns - column, kSide + 0u);
  if (lane < wide) {
    for (unsigned i = first; i < high; i += kThreads / kSide) tile[i][lane] = x[from + i * t.columnStride + lane];
  }
  __syncthreads();
  if (lane < high) {
    for (unsigned i = first; i < wide; i += kThreads / kSide) y[to + i * t.rowStride + lane] = tile[lane][i];
  }
}

}  // namespace

template <class E>
cudaError_t transposeTiles(const Transpose& t, const E* x, E* y, cudaStream_t stream) {
  unsigned blocks = ((t.rows + kSide - 1) / kSide) * ((t.columns + kSide - 1) / kSide);
  for (int k = 0; k < t.outer; ++k) blocks *= t.extent[k];
  return launch<transposeKernel<E>>({blocks, kThreads, 0, stream}, t, x, y);
}

template cudaError_t transposeTiles(const Transpose&, const uint8_t*, uint8_t*, cudaStream_t);
template cudaError_t transposeTiles(const Transpose&, const uint16_t*, uint16_t*, cudaStream_t);
template cudaError_t transposeTiles(const Transpose&, const uint32_t*, uint32_t*, cudaStream_t);

}  // namespace refl::cuda
