// Group norm, forward. Two forms; both accumulate in float32, in an order that depends on the shape alone.
//
// In shared memory, where a group of an image has at most 96 KiB (SD 2.1's 64 x 64 x 10 in 16 bits): a block of 256
// threads for each image and group. Each thread copies every 256th vector of the group, takes the mean of what the
// block has, then the variance about that mean, then writes: one read of x, one write of y, about 9 operations an
// element (30 with SiLU). Rows of a group are 8 to 80 bytes; their sectors are shared with the neighbouring groups'
// blocks through L2.
//
// In chunks, for larger ones (the VAE's 512 x 512 x 4): 1. a block for each image and chunk of pixels takes all
// channels' sums of x - pivot and its square, the pivot being the group's first element (against cancellation), and
// leaves mean and sum of squares about it for each group; 2. a block for each image and chunk merges the chunks'
// moments, a warp a group, and writes y = x * scale + shift. Two reads of x, one write of y, and 8 bytes a chunk and
// group.
//
// Vectors are as wide as divides a group's channels, up to 16 bytes.
#include "norm/blocks.h"
#include "norm/group_norm.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kMostShared = 96 * 1024;

template <bool kSilu>
__device__ __forceinline__ float activated(float u) {
  return kSilu ? u / (1.0f + fastExp(-u)) : u;
}

/** Steps through a group's vectors, every 256th: pixel and vector of the pixel. */
struct Walk {
  int pixel, vector, pixelStep, vectorStep, perPixel;
  __device__ __forceinline__ explicit Walk(int perPixel)
      : pixel(static_cast<int>(threadIdx.x) / perPixel),
        vector(static_cast<int>(threadIdx.x) % perPixel),
        pixelStep(kThreads / perPixel),
        vectorStep(kThreads % perPixel),
        perPixel(perPixel) {}
  __device__ __forceinline__ void step() {
    pixel += pixelStep;
    vector += vectorStep;
    if (vector >= perPixel) {
      vector -= perPixel;
      ++pixel;
    }
  }
};

template <class T, int V, bool kSilu>
__global__ void __launch_bounds__(kThreads)
    groupNormSharedKernel(const T* x, const float* __restrict__ gamma, const float* __restrict__ beta, int pixels,
                          int channels, int groups, float eps, T* y, float* __restrict__ mean,
                          float* __restrict__ rstd) {
  SIMT_SHARED(float, sums, [kWarps]);
  SIMT_SHARED(float, squares, [kWarps]);
  SharedArena arena;
  const unsigned image = blockIdx.x / groups;
  const int group = static_cast<int>(blockIdx.x % groups), perGroup = channels / groups, count = pixels * perGroup;
  const size_t base = static_cast<size_t>(image) * pixels * channels + group * perGroup;
  T* tile = arena.take<T>(count);

  // A thread reads back only what it copied itself, so its own wait is enough.
  const int perPixel = perGroup / V, vectors = count / V;
  constexpr int kBytes = V * static_cast<int>(sizeof(T));
  Walk walk(perPixel);
  for (int i = static_cast<int>(threadIdx.x); i < vectors; i += kThreads, walk.step()) {
    const T* from = x + base + static_cast<size_t>(walk.pixel) * channels + walk.vector * V;
    if constexpr (kBytes >= 4)
      cpAsync<kBytes>(tile + i * V, from);
    else
      store(tile + i * V, load<V>(from));
  }
  cpAsyncCommit();
  cpAsyncWait<0>();

  float sum = 0;
  for (int i = static_cast<int>(threadIdx.x); i < vectors; i += kThreads) {
    const Pack<T, V> v = load<V>(tile + i * V);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += toFloat(v[k]);
  }
  const float centre = blockSum(sum, sums) / static_cast<float>(count);
  float square = 0;
  for (int i = static_cast<int>(threadIdx.x); i < vectors; i += kThreads) {
    const Pack<T, V> v = load<V>(tile + i * V);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float d = toFloat(v[k]) - centre;
      square = fmaf(d, d, square);
    }
  }
  const float scale = rsqrtf(blockSum(square, squares) / static_cast<float>(count) + eps);
  if (threadIdx.x == 0) {
    mean[blockIdx.x] = centre;
    rstd[blockIdx.x] = scale;
  }

  walk = Walk(perPixel);
  for (int i = static_cast<int>(threadIdx.x); i < vectors; i += kThreads, walk.step()) {
    Pack<T, V> v = load<V>(tile + i * V);
    const int channel = group * perGroup + walk.vector * V;
    float gain[V], shift[V];
    loadFloats(gamma + channel, gain);
    loadFloats(beta + channel, shift);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float u = fmaf((toFloat(v[k]) - centre) * scale, gain[k], shift[k]);
      v[k] = fromFloat<T>(activated<kSilu>(u));
    }
    store(y + base + static_cast<size_t>(walk.pixel) * channels + walk.vector * V, v);
  }
}

// moments [N, chunks, groups, 2]: mean and sum of squares about it. Dynamic shared memory: two floats for each thread's
// row of pixels and each vector of a pixel.
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    groupNormMomentsKernel(const T* __restrict__ x, int pixels, int channels, int groups, int chunkPixels,
                           float* __restrict__ moments) {
  const int perPixel = channels / V, perGroup = channels / groups, chunk = static_cast<int>(blockIdx.y);
  const int rows = perPixel < kThreads ? kThreads / perPixel : 1;
  const int first = chunk * chunkPixels, last = min(first + chunkPixels, pixels);
  const T* image = x + static_cast<size_t>(blockIdx.x) * pixels * channels;
  SharedArena arena;
  float* sums = arena.take<float>(rows * perPixel);
  float* squares = arena.take<float>(rows * perPixel);

  for (int i = static_cast<int>(threadIdx.x); i < rows * perPixel; i += kThreads) {
    const int row = i / perPixel, channel = i % perPixel * V;
    const float pivot = toFloat(image[channel / perGroup * perGroup]);
    float sum = 0, square = 0;
    for (int p = first + row; p < last; p += rows) {
      const Pack<T, V> v = load<V>(image + static_cast<size_t>(p) * channels + channel);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float d = toFloat(v[k]) - pivot;
        sum += d;
        square = fmaf(d, d, square);
      }
    }
    sums[i] = sum;
    squares[i] = square;
  }
  __syncthreads();

  const float count = static_cast<float>((last - first) * perGroup);
  for (int group = static_cast<int>(threadIdx.x); group < groups; group += kThreads) {
    float sum = 0, square = 0;
    for (int row = 0; row < rows; ++row) {
      for (int i = 0; i < perGroup / V; ++i) {
        sum += sums[row * perPixel + group * (perGroup / V) + i];
        square += squares[row * perPixel + group * (perGroup / V) + i];
      }
    }
    const float shift = sum / count;
    float* to = moments + ((static_cast<size_t>(blockIdx.x) * gridDim.y + chunk) * groups + group) * 2;
    store(to, Pack<float, 2>{{toFloat(image[group * perGroup]) + shift, max(square - sum * shift, 0.0f)}});
  }
}

// Dynamic shared memory: mean and rstd of each group.
template <class T, int V, bool kSilu>
__global__ void __launch_bounds__(kThreads)
    groupNormApplyKernel(const T* x, const float* __restrict__ gamma, const float* __restrict__ beta,
                         const float* __restrict__ moments, int pixels, int channels, int groups, int chunkPixels,
                         float eps, T* y, float* __restrict__ mean, float* __restrict__ rstd) {
  const int chunks = static_cast<int>(gridDim.y), chunk = static_cast<int>(blockIdx.y),
            image = static_cast<int>(blockIdx.x);
  const int perPixel = channels / V, perGroup = channels / groups;
  SharedArena arena;
  float* centres = arena.take<float>(groups);
  float* scales = arena.take<float>(groups);

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const float whole = static_cast<float>(pixels) * static_cast<float>(perGroup);
  for (int group = static_cast<int>(threadIdx.x) / 32; group < groups; group += kWarps) {
    const float* of = moments + (static_cast<size_t>(image) * chunks * groups + group) * 2;
    const auto sizeOf = [&](int c) {
      return static_cast<float>(min(chunkPixels, pixels - c * chunkPixels) * perGroup);
    };
    float centre = 0;
    for (int c = lane; c < chunks; c += 32) centre = fmaf(of[c * groups * 2], sizeOf(c) / whole, centre);
    centre = warpSum(centre);
    float square = 0;
    for (int c = lane; c < chunks; c += 32) {
      const float d = of[c * groups * 2] - centre;
      square += fmaf(d * d, sizeOf(c), of[c * groups * 2 + 1]);
    }
    const float scale = rsqrtf(warpSum(square) / whole + eps);
    if (lane == 0) {
      centres[group] = centre;
      scales[group] = scale;
      if (chunk == 0) {
        mean[image * groups + group] = centre;
        rstd[image * groups + group] = scale;
      }
    }
  }
  __syncthreads();

  const int first = chunk * chunkPixels, last = min(first + chunkPixels, pixels);
  const size_t base = (static_cast<size_t>(image) * pixels + first) * channels;
  for (int i = static_cast<int>(threadIdx.x); i < (last - first) * perPixel; i += kThreads) {
    const int channel = i % perPixel * V, group = channel / perGroup;
    Pack<T, V> v = load<V>(x + base + static_cast<size_t>(i) * V);
    const float centre = centres[group], scale = scales[group];
    float gain[V], shift[V];
    loadFloats(gamma + channel, gain);
    loadFloats(beta + channel, shift);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float u = fmaf((toFloat(v[k]) - centre) * scale, gain[k], shift[k]);
      v[k] = fromFloat<T>(activated<kSilu>(u));
    }
    store(y + base + static_cast<size_t>(i) * V, v);
  }
}

}  // namespace

template <class T>
bool groupNormFits(const GroupNormShape& shape) {
  return static_cast<size_t>(shape.pixels) * (shape.channels / shape.groups) * sizeof(T) <= kMostShared;
}

size_t groupNormScratch(const GroupNormShape& shape) {
  return static_cast<size_t>(shape.images) * Chunks(shape.pixels).count * shape.groups * 2 * sizeof(float);
}

template <class T>
cudaError_t groupNormInChunks(const GroupNormShape& shape, const T* x, const float* gamma, const float* beta, float eps,
                              bool silu, T* y, float* mean, float* rstd, float* scratch, cudaStream_t stream) {
  const Chunks chunks(shape.pixels);
  const dim3 grid(shape.images, chunks.count);
  return withVector<T>(shape.channels / shape.groups, {x, y}, [&](auto width) {
    constexpr int V = decltype(width)::value;
    const int perPixel = shape.channels / V, rows = perPixel < kThreads ? kThreads / perPixel : 1;
    SharedLayout sums;
    sums.take<float>(rows * perPixel);
    sums.take<float>(rows * perPixel);
    const cudaError_t error = launch<groupNormMomentsKernel<T, V>>(
        {grid, kThreads, sums.bytes(), stream}, x, shape.pixels, shape.channels, shape.groups, chunks.pixels, scratch);
    if (error != cudaSuccess) return error;
    const Launch at = {grid, kThreads, SharedLayout().take<float>(shape.groups).take<float>(shape.groups).bytes(),
                       stream};
    const auto apply = [&](auto folded) {
      return launch<groupNormApplyKernel<T, V, decltype(folded)::value>>(
          at, x, gamma, beta, scratch, shape.pixels, shape.channels, shape.groups, chunks.pixels, eps, y, mean, rstd);
    };
    return silu ? apply(std::true_type()) : apply(std::false_type());
  });
}

template <class T>
cudaError_t groupNormForward(const GroupNormShape& shape, const T* x, const float* gamma, const float* beta, float eps,
                             bool silu, T* y, float* mean, float* rstd, float* scratch, cudaStream_t stream) {
  if (!groupNormFits<T>(shape))
    return groupNormInChunks(shape, x, gamma, beta, eps, silu, y, mean, rstd, scratch, stream);
  const int perGroup = shape.channels / shape.groups;
  const size_t bytes = SharedLayout().take<T>(static_cast<size_t>(shape.pixels) * perGroup).bytes();
  const Launch at = {dim3(shape.images * shape.groups), kThreads, bytes, stream};
  return withVector<T>(perGroup, {x, y}, [&](auto width) {
    constexpr int V = decltype(width)::value;
    const auto go = [&](auto folded) {
      return launch<groupNormSharedKernel<T, V, decltype(folded)::value>>(
          at, x, gamma, beta, shape.pixels, shape.channels, shape.groups, eps, y, mean, rstd);
    };
    return silu ? go(std::true_type()) : go(std::false_type());
  });
}

#define REFL_GROUP_NORM(T)                                                                                             \
  template bool groupNormFits<T>(const GroupNormShape&);                                                               \
  template cudaError_t groupNormInChunks(const GroupNormShape&, const T*, const float*, const float*, float, bool, T*, \
                                         float*, float*, float*, cudaStream_t);                                        \
  template cudaError_t groupNormForward(const GroupNormShape&, const T*, const float*, const float*, float, bool, T*,  \
                                        float*, float*, float*, cudaStream_t);
REFL_GROUP_NORM(float)
REFL_GROUP_NORM(bf16)
REFL_GROUP_NORM(f16)

}  // namespace refl::cuda
