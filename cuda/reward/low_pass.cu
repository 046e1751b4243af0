// Images filtered along both axes by bands, with the mean of what is left of each, and the way back.
//
// columnsKernel: a thread has one vector of 16 bytes of an output row and goes down its taps; neighbouring threads read
// beside each other, rows that several outputs read come from cache. rowsKernel: a thread has one channel of an output
// pixel, up to four times, whose taps lie a pixel apart; a block leaves the sum of what it wrote, which meanKernel adds
// up. Of the level-3 low-pass of an image of I bytes, with up to 91 taps: I + I/4 bytes down the columns, I/4 + I/16
// along the rows, where transpositions, products with whole matrices and a reduction apart moved 4.5 I (512 x 512 x 3:
// 4.9 MB and 14 MB). Backwards, through the transposed bands, the same in the other order. 2 operations a tap: 45
// million of 512 x 512 x 3. Sums are float32, over taps in order, over blocks in an order that depends on the shape
// alone.
#include "reward/mean.h"
#include "reward/reward.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kEach = 4;  // elements that a thread of rowsKernel has

/** Where a row's taps begin: within the image, whatever the table says. */
__device__ __forceinline__ int firstOf(const Band& band, int i) {
  return max(0, min(band.first[i], band.from - band.count));
}

/** y [images, band.to, inner] from x [images, band.from, inner]. */
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    columnsKernel(const Band band, int vectors, int inner, const T* __restrict__ x, float* __restrict__ y) {
  const int vector = static_cast<int>(blockIdx.x) * kThreads + static_cast<int>(threadIdx.x);
  if (vector < vectors) {
    const int row = vector / (inner / V), j = vector % (inner / V) * V, i = row % band.to;
    const T* from = x + (static_cast<size_t>(row / band.to) * band.from + firstOf(band, i)) * inner + j;
    float sum[V] = {};
    for (int k = 0; k < band.count; ++k) {
      const float tap = band.taps[k * band.to + i];
      const Pack<T, V> v = load<V>(from + static_cast<size_t>(k) * inner);
#pragma unroll
      for (int n = 0; n < V; ++n) sum[n] = fmaf(tap, toFloat(v[n]), sum[n]);
    }
    float* to = y + static_cast<size_t>(row) * inner + j;
    constexpr int kWide = V < 4 ? V : 4;
#pragma unroll
    for (int n = 0; n < V; n += kWide) {
      Pack<float, kWide> part;
#pragma unroll
      for (int m = 0; m < kWide; ++m) part[m] = sum[n + m];
      store(to + n, part);
    }
  }
}

/** What is filtered along the rows. */
struct Plain {
  const float* x;
  __device__ __forceinline__ float operator()(size_t at, int) const { return x[at]; }
};
/** What y and its level hand on to y. */
struct Slopes {
  const float *y, *dy, *dLevel;
  float scale;  // of the level: one over the elements of an image
  __device__ __forceinline__ float operator()(size_t at, int image) const {
    const float slope = dy != nullptr ? dy[at] : 0.0f;
    if (dLevel == nullptr) return slope;
    const float sign = y[at] > 0.0f ? 1.0f : y[at] < 0.0f ? -1.0f : 0.0f;
    return fmaf(dLevel[image] * scale, sign, slope);
  }
};

/** y [images, rows, band.to, channels] from `from` [images, rows, band.from, channels], by `blocks` blocks an image;
 * with `sums` that of |y| over each block. */
template <class From, bool kSums>
__global__ void __launch_bounds__(kThreads)
    rowsKernel(const Band band, int rows, int channels, int blocks, const From from, float* __restrict__ y,
               float* __restrict__ sums) {
  SIMT_SHARED(float, partial, [kWarps]);
  const int image = static_cast<int>(blockIdx.x) / blocks, block = static_cast<int>(blockIdx.x) % blocks;
  const int width = band.to * channels, elements = rows * width;
  float level = 0.0f;
  for (int n = 0; n < kEach; ++n) {
    const int e = (block * kEach + n) * kThreads + static_cast<int>(threadIdx.x);
    if (e < elements) {
      const int row = image * rows + e / width, i = e % width / channels, c = e % channels;
      const size_t at = (static_cast<size_t>(row) * band.from + firstOf(band, i)) * channels + c;
      float sum = 0.0f;
      for (int k = 0; k < band.count; ++k)
        sum = fmaf(band.taps[k * band.to + i], from(at + static_cast<size_t>(k) * channels, image), sum);
      y[static_cast<size_t>(image) * elements + e] = sum;
      level += fabsf(sum);
    }
  }
  if constexpr (kSums) {
    level = blockSum(level, partial);
    if (threadIdx.x == 0) sums[blockIdx.x] = level;
  }
}

int blocksOf(int elements) { return (elements + kThreads * kEach - 1) / (kThreads * kEach); }

template <class T>
cudaError_t downColumns(const Band& band, int images, int inner, const T* x, float* y, cudaStream_t stream) {
  return withVector<T>(inner, {x, y}, [&](auto v) {
    constexpr int V = decltype(v)::value;
    const int vectors = images * band.to * (inner / V);
    return launch<columnsKernel<T, V>>({dim3((vectors + kThreads - 1) / kThreads), kThreads, 0, stream}, band, vectors,
                                       inner, x, y);
  });
}

/** y [images, rows, band.to, channels], and with kSums the sums of each of the blocks of an image. */
template <bool kSums, class From>
cudaError_t alongRows(const Band& band, int images, int rows, int channels, const From& from, float* y, float* sums,
                      cudaStream_t stream) {
  const int blocks = blocksOf(rows * band.to * channels);
  return launch<rowsKernel<From, kSums>>({dim3(images * blocks), kThreads, 0, stream}, band, rows, channels, blocks,
                                         from, y, sums);
}

}  // namespace

size_t lowPassScratch(const Filter& f) {
  const size_t between = static_cast<size_t>(f.images) * f.alongY.to * f.alongX.from * f.channels;
  return (between + f.images * blocksOf(f.alongY.to * f.alongX.to * f.channels)) * sizeof(float);
}

template <class T>
cudaError_t lowPass(const Filter& f, const T* x, float* y, float* level, float* scratch, cudaStream_t stream) {
  const int rows = f.alongY.to, elements = rows * f.alongX.to * f.channels;
  float* sums = scratch + static_cast<size_t>(f.images) * rows * f.alongX.from * f.channels;
  cudaError_t status = downColumns(f.alongY, f.images, f.alongX.from * f.channels, x, scratch, stream);
  if (status != cudaSuccess) return status;
  status = alongRows<true>(f.alongX, f.images, rows, f.channels, Plain{scratch}, y, sums, stream);
  if (status != cudaSuccess) return status;
  return means(f.images, blocksOf(elements), static_cast<float>(elements), sums, level, stream);
}

size_t lowPassGradScratch(const Filter& f) {
  return static_cast<size_t>(f.images) * f.alongY.from * f.alongX.to * f.channels * sizeof(float);
}

cudaError_t lowPassGrad(const Filter& f, const float* y, const float* dy, const float* dLevel, float* dx,
                        float* scratch, cudaStream_t stream) {
  const int rows = f.alongY.from;
  const Slopes slopes = {y, dy, dLevel, 1.0f / static_cast<float>(rows * f.alongX.from * f.channels)};
  const cudaError_t status = alongRows<false>(f.alongX, f.images, rows, f.channels, slopes, scratch, nullptr, stream);
  if (status != cudaSuccess) return status;
  return downColumns(f.alongY, f.images, f.alongX.to * f.channels, scratch, dx, stream);
}

template cudaError_t lowPass(const Filter&, const float*, float*, float*, float*, cudaStream_t);
template cudaError_t lowPass(const Filter&, const bf16*, float*, float*, float*, cudaStream_t);
template cudaError_t lowPass(const Filter&, const f16*, float*, float*, float*, cudaStream_t);

}  // namespace refl::cuda
