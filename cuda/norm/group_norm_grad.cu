// Group norm, backward, in three kernels: 1. each channel's sums over chunks of pixels (column_sums.h); 2. a block for
// each image and group adds up the chunks, a warp a channel, and leaves the group's means of gamma g and gamma g
// xhat; 3. a block for each image and chunk writes dx = rstd (gamma g - mean - xhat mean'), and the first blocks add up
// the images' sums to dgamma and dbeta. So x and dy are read twice, the second time from L2 where they fit in it, and
// dx is written once; g is computed twice rather than kept. Accumulates in float32, in an order that depends on the
// shape alone.
#include "norm/column_sums.h"
#include "norm/group_norm.h"

namespace refl::cuda {
namespace {

using namespace simt;

/** Scratch: the sums of chunks, those of images [images, 2, channels], and the groups' means [images, groups, 2]. */
struct Scratch {
  float *chunks, *images, *groups;
  size_t count;
  Scratch(const GroupNormShape& s, float* at) {
    const size_t sums = static_cast<size_t>(s.images) * 2 * s.channels;
    chunks = at;
    images = chunks + sums * Chunks(s.pixels).count;
    groups = images + sums;
    count = sums * (Chunks(s.pixels).count + 1) + static_cast<size_t>(s.images) * s.groups * 2;
  }
};

__global__ void __launch_bounds__(kThreads, 4)
    groupMeansKernel(const float* __restrict__ chunkSums, const float* __restrict__ gamma, int channels, int groups,
                     int chunks, int pixels, float* __restrict__ imageSums, float* __restrict__ means) {
  SIMT_SHARED(float, warps, [2][kWarps]);
  const int image = static_cast<int>(blockIdx.x) / groups, group = static_cast<int>(blockIdx.x) % groups;
  const int perGroup = channels / groups, warp = static_cast<int>(threadIdx.x) / 32;
  const size_t base = static_cast<size_t>(image) * 2 * channels;
  float sum = 0, sumX = 0;
  for (int channel = group * perGroup + warp; channel < (group + 1) * perGroup; channel += kWarps) {
    const float own = chunkSum(chunkSums + (base + channel) * chunks, chunks);
    const float ownX = chunkSum(chunkSums + (base + channels + channel) * chunks, chunks);
    if (threadIdx.x % 32 == 0) {
      imageSums[base + channel] = own;
      imageSums[base + channels + channel] = ownX;
    }
    sum = fmaf(gamma[channel], own, sum);
    sumX = fmaf(gamma[channel], ownX, sumX);
  }
  if (threadIdx.x % 32 == 0) {
    warps[0][warp] = sum;
    warps[1][warp] = sumX;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    sum = sumX = 0;
    for (int i = 0; i < kWarps; ++i) {
      sum += warps[0][i];
      sumX += warps[1][i];
    }
    const float members = static_cast<float>(pixels) * static_cast<float>(perGroup);
    store(means + static_cast<size_t>(blockIdx.x) * 2, Pack<float, 2>{{sum / members, sumX / members}});
  }
}

template <class T, int V, bool kSilu>
__global__ void __launch_bounds__(kThreads)
    groupNormGradKernel(const ColumnSums s, int images, const float* __restrict__ imageSums,
                        const float* __restrict__ means, const T* __restrict__ x, const T* dy, T* dx,
                        float* __restrict__ dgamma, float* __restrict__ dbeta) {
  const int all = static_cast<int>(blockIdx.x * kThreads + threadIdx.x);
  for (int channel = all; channel < s.channels; channel += static_cast<int>(gridDim.x) * kThreads) {
    float sum = 0, sumX = 0;
    for (int image = 0; image < images; ++image) {
      sum += imageSums[static_cast<size_t>(image) * 2 * s.channels + channel];
      sumX += imageSums[static_cast<size_t>(image) * 2 * s.channels + s.channels + channel];
    }
    dgamma[channel] = sumX;
    dbeta[channel] = sum;
  }
  const int image = static_cast<int>(blockIdx.x) / s.chunks, chunk = static_cast<int>(blockIdx.x) % s.chunks;
  const int perPixel = s.channels / V, perGroup = s.channels / s.groups;
  const int first = chunk * s.chunkPixels, count = min(s.chunkPixels, s.pixels - first) * perPixel;
  const size_t base = (static_cast<size_t>(image) * s.pixels + first) * s.channels;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kThreads) {
    const int channel = i % perPixel * V, group = image * s.groups + channel / perGroup;
    const size_t at = base + static_cast<size_t>(i) * V;
    const Pack<T, V> vx = load<V>(x + at), vg = load<V>(dy + at);
    const float mean = s.mean[group], rstd = s.rstd[group];
    const Pack<float, 2> of = load<2>(means + static_cast<size_t>(group) * 2);
    float gamma[V], beta[V] = {};
    loadFloats(s.gamma + channel, gamma);
    if (kSilu) loadFloats(s.beta + channel, beta);
    Pack<T, V> result;
#pragma unroll
    for (int k = 0; k < V; ++k) {
      const float xhat = (toFloat(vx[k]) - mean) * rstd;
      float g = toFloat(vg[k]);
      if (kSilu) g *= siluSlope(fmaf(xhat, gamma[k], beta[k]));
      result[k] = fromFloat<T>(rstd * (gamma[k] * g - of[0] - xhat * of[1]));
    }
    store(dx + at, result);
  }
}

}  // namespace

size_t groupNormGradScratch(const GroupNormShape& shape) { return Scratch(shape, nullptr).count * sizeof(float); }

template <class T>
cudaError_t groupNormGrad(const GroupNormShape& shape, const T* x, const float* gamma, const float* beta,
                          const float* mean, const float* rstd, const T* dy, bool silu, T* dx, float* dgamma,
                          float* dbeta, float* scratch, cudaStream_t stream) {
  const Chunks chunks(shape.pixels);
  const Scratch at(shape, scratch);
  const ColumnSums s = {shape.pixels, shape.channels, chunks.pixels, chunks.count, mean,
                        rstd,         shape.groups,   gamma,         beta};
  return withVector<T>(shape.channels / shape.groups, {x, dy, dx}, [&](auto width) {
    constexpr int V = decltype(width)::value;
    const auto go = [&](auto folded) {
      constexpr bool kSilu = decltype(folded)::value;
      cudaError_t status = columnSums(s, silu, shape.images, x, dy, at.chunks, stream);
      if (status != cudaSuccess) return status;
      status = launch<groupMeansKernel>({dim3(shape.images * shape.groups), kThreads, 0, stream}, at.chunks, gamma,
                                        shape.channels, shape.groups, chunks.count, shape.pixels, at.images, at.groups);
      if (status != cudaSuccess) return status;
      return launch<groupNormGradKernel<T, V, kSilu>>({dim3(shape.images * chunks.count), kThreads, 0, stream}, s,
                                                      shape.images, at.images, at.groups, x, dy, dx, dgamma, dbeta);
    };
    return silu ? go(std::true_type()) : go(std::false_type());
  });
}

#define REFL_GROUP_NORM_GRAD(T)                                                                                 \
  template cudaError_t groupNormGrad(const GroupNormShape&, const T*, const float*, const float*, const float*, \
                                     const float*, const T*, bool, T*, float*, float*, float*, cudaStream_t);
REFL_GROUP_NORM_GRAD(float)
REFL_GROUP_NORM_GRAD(bf16)
REFL_GROUP_NORM_GRAD(f16)

}  // namespace refl::cuda
