// Weights [O, C, kh, kw] with the summed channels innermost, turned round through tiles in shared memory: memory is
// read and written in runs of a tile's side, each element once. Rows of a tile are padded by one element, so a warp's
// elements of a column lie in as many banks.
#include "conv2d/conv2d.h"
#include "layout/layout.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kChannels = 64, kTaps = 32, kThreads = 256;

/** to [rows, taps, channels] from [rows, channels, taps]. A block turns kChannels x kTaps of a row. */
template <class T>
__global__ void __launch_bounds__(kThreads)
    packTapsKernel(const T* __restrict__ from, int taps, int channels, T* __restrict__ to) {
  SIMT_SHARED(T, tile, [kChannels][kTaps + 1]);
  const int blocks = (channels + kChannels - 1) / kChannels, row = static_cast<int>(blockIdx.x) / blocks;
  const int channel = static_cast<int>(blockIdx.x) % blocks * kChannels, tap = static_cast<int>(blockIdx.y) * kTaps;
  const int wide = min(channels - channel, kChannels), high = min(taps - tap, kTaps);
  const int64_t start = static_cast<int64_t>(row) * taps * channels;
  for (int i = static_cast<int>(threadIdx.x); i < wide * high; i += kThreads) {
    const int c = i / high, t = i % high;
    tile[c][t] = from[start + static_cast<int64_t>(channel + c) * taps + tap + t];
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < wide * high; i += kThreads) {
    const int t = i / wide, c = i % wide;
    to[start + static_cast<int64_t>(tap + t) * channels + channel + c] = tile[c][t];
  }
}

}  // namespace

template <class T>
cudaError_t packConvWeight(const ConvShape& s, const T* weight, T* packed, cudaStream_t stream) {
  const int taps = s.kernelHeight * s.kernelWidth;
  if (s.outputs == 0 || s.channels == 0 || taps == 0) return cudaSuccess;
  const dim3 grid(s.outputs * ((s.channels + kChannels - 1) / kChannels), (taps + kTaps - 1) / kTaps);
  return launch<packTapsKernel<T>>({grid, kThreads, 0, stream}, weight, taps, s.channels, packed);
}

template <class T>
cudaError_t packConvWeightForGradInput(const ConvShape& s, const T* weight, T* packed, cudaStream_t stream) {
  const auto columns = static_cast<unsigned>(s.kernelHeight * s.kernelWidth * s.channels),
             outputs = static_cast<unsigned>(s.outputs);
  if (outputs == 0 || columns == 0) return cudaSuccess;
  using Bits = std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>;
  const Transpose turn = {columns, outputs, outputs, columns, 0, {}, {}, {}};
  return transposeTiles(turn, reinterpret_cast<const Bits*>(weight), reinterpret_cast<Bits*>(packed), stream);
}

#define REFL_PACK(T)                                                                 \
  template cudaError_t packConvWeight(const ConvShape&, const T*, T*, cudaStream_t); \
  template cudaError_t packConvWeightForGradInput(const ConvShape&, const T*, T*, cudaStream_t);
REFL_PACK(float)
REFL_PACK(bf16)
REFL_PACK(f16)

}  // namespace refl::cuda
