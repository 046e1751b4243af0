// Weights [O, C, kh, kw] with the summed channels innermost, turned round through tiles in shared memory: memory is
// read and written in runs of a tile's side, each element once. Rows of a tile are padded by one element, so a warp's
// elements of a column lie in as many banks.
#include "conv2d/conv2d.h"
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

constexpr int kSide = 64;

/** to [columns, rows], the transpose of from [rows, columns]. A block turns kSide x kSide. */
template <class T>
__global__ void __launch_bounds__(kThreads)
    transposeKernel(const T* __restrict__ from, int rows, int columns, T* __restrict__ to) {
  SIMT_SHARED(T, tile, [kSide][kSide + 1]);
  const int across = (columns + kSide - 1) / kSide;
  const int column = static_cast<int>(blockIdx.x) % across * kSide, row = static_cast<int>(blockIdx.x) / across * kSide;
  const int x = static_cast<int>(threadIdx.x) % kSide, y = static_cast<int>(threadIdx.x) / kSide;
  const int wide = min(columns - column, kSide), high = min(rows - row, kSide);
  for (int i = y; i < high; i += kThreads / kSide) {
    if (x < wide) tile[i][x] = from[static_cast<int64_t>(row + i) * columns + column + x];
  }
  __syncthreads();
  for (int i = y; i < wide; i += kThreads / kSide) {
    if (x < high) to[static_cast<int64_t>(column + i) * rows + row + x] = tile[x][i];
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
  const int columns = s.kernelHeight * s.kernelWidth * s.channels;
  if (s.outputs == 0 || columns == 0) return cudaSuccess;
  const dim3 grid(((s.outputs + kSide - 1) / kSide) * ((columns + kSide - 1) / kSide));
  return launch<transposeKernel<T>>({grid, kThreads, 0, stream}, weight, s.outputs, columns, packed);
}

#define REFL_PACK(T)                                                                 \
  template cudaError_t packConvWeight(const ConvShape&, const T*, T*, cudaStream_t); \
  template cudaError_t packConvWeightForGradInput(const ConvShape&, const T*, T*, cudaStream_t);
REFL_PACK(float)
REFL_PACK(bf16)
REFL_PACK(f16)

}  // namespace refl::cuda
