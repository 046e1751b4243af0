// The distance of features' directions (LPIPS), and its gradient.
//
// As many lanes share a position as its channels have vectors of 16 bytes, up to a warp; the others of a warp take
// positions beside it. A position is read twice, its second time from the first cache level (4 KB of two features of
// 512 float32 channels): once for the two norms, once for the difference; backwards a third time, between the sum along
// the feature and the result. Memory sees each element of a and b once, and backwards the gradient besides. At the five
// resolutions of VGG16 for 512 x 512 pixels, 32 million features, that is 0.13 GB in bf16 and 0.19 GB backwards, where
// operators apart moved 1.67 GB and 2.12 GB. About 10 operations an element forwards and 16 backwards.
//
// Sums are float32: a lane its positions of a chunk, the block in shared memory, a warp the chunks of an image, each in
// an order that depends on the shape alone.
#include <algorithm>

#include "reward/mean.h"
#include "reward/reward.h"

namespace refl::cuda {
namespace {

using namespace simt;

/** How positions are cut: `lanes` to one, `groups` of them at a time in a block, `chunks` of an image. */
struct Cut {
  int lanes, groups, chunkPositions, chunks;

  Cut(const Features& s, int vector) : lanes(1) {
    while (lanes < 32 && lanes * vector < s.channels) lanes *= 2;
    groups = kThreads / lanes;
    constexpr int kMostChunks = 512;
    chunkPositions = std::max(2 * groups, (s.positions + kMostChunks - 1) / kMostChunks);
    chunks = (s.positions + chunkPositions - 1) / chunkPositions;
  }
};

/** What a feature is divided by, from the sum of its squares. */
struct Norm {
  float norm, inverse;
  bool floored;
  __device__ __forceinline__ explicit Norm(float squares)
      : norm(sqrtf(max(squares, 1e-30f))), inverse(1.0f / (norm + 1e-10f)), floored(squares < 1e-30f) {}
};

/** Sums of squares of two features over the lanes of a position; zeros where there is no position. All lanes of a warp
 * call it. */
template <int V, class T>
__device__ __forceinline__ void squaresOf(const T* a, const T* b, int first, int channels, int lanes, bool there,
                                          float (&squares)[2]) {
  if (there) {
    for (int i = first; i < channels; i += lanes * V) {
      const Pack<T, V> x = load<V>(a + i), y = load<V>(b + i);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        squares[0] = fmaf(toFloat(x[k]), toFloat(x[k]), squares[0]);
        squares[1] = fmaf(toFloat(y[k]), toFloat(y[k]), squares[1]);
      }
    }
  }
  warpSum(squares, lanes);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    distanceKernel(const Features s, const Cut cut, const T* __restrict__ a, const T* __restrict__ b,
                   const float* __restrict__ weight, float* __restrict__ partials) {
  SIMT_SHARED(float, sums, [kWarps]);
  const int image = static_cast<int>(blockIdx.x) / cut.chunks, chunk = static_cast<int>(blockIdx.x) % cut.chunks;
  const int begin = chunk * cut.chunkPositions, end = min(s.positions - begin, cut.chunkPositions) + begin;
  const int first = static_cast<int>(threadIdx.x) % cut.lanes * V;
  float total = 0.0f;
  for (int from = begin; from < end; from += cut.groups) {
    const int position = from + static_cast<int>(threadIdx.x) / cut.lanes;
    const size_t at = (static_cast<size_t>(image) * s.positions + position) * s.channels;
    const bool there = position < end;
    float squares[2] = {};
    squaresOf<V>(a + at, b + at, first, s.channels, cut.lanes, there, squares);
    if (there) {
      const float ours = Norm(squares[0]).inverse, theirs = Norm(squares[1]).inverse;
      for (int i = first; i < s.channels; i += cut.lanes * V) {
        const Pack<T, V> x = load<V>(a + at + i), y = load<V>(b + at + i);
        float w[V];
        loadFloats(weight + i, w);
#pragma unroll
        for (int k = 0; k < V; ++k) {
          const float d = toFloat(x[k]) * ours - toFloat(y[k]) * theirs;
          total = fmaf(w[k] * d, d, total);
        }
      }
    }
  }
  total = blockSum(total, sums);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

/** With d = a / (|a| + eps) - b / (|b| + eps) and r = 1 / (|a| + eps): da = 2 dy / positions r (w d - a r / |a| sum(w d
 * a)), the second term only where the norm is no floor. */
template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    distanceGradKernel(const Features s, const Cut cut, const T* __restrict__ a, const T* __restrict__ b,
                       const float* __restrict__ weight, const float* __restrict__ dy, T* __restrict__ da) {
  const int position = static_cast<int>(blockIdx.x) * cut.groups + static_cast<int>(threadIdx.x) / cut.lanes;
  const int first = static_cast<int>(threadIdx.x) % cut.lanes * V;
  const size_t at = static_cast<size_t>(position) * s.channels;
  const bool there = position < s.images * s.positions;
  float squares[2] = {};
  squaresOf<V>(a + at, b + at, first, s.channels, cut.lanes, there, squares);
  const Norm ours(squares[0]), theirs(squares[1]);
  float along = 0.0f;
  if (there) {
    for (int i = first; i < s.channels; i += cut.lanes * V) {
      const Pack<T, V> x = load<V>(a + at + i), y = load<V>(b + at + i);
      float w[V];
      loadFloats(weight + i, w);
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float d = toFloat(x[k]) * ours.inverse - toFloat(y[k]) * theirs.inverse;
        along = fmaf(w[k] * d, toFloat(x[k]), along);
      }
    }
  }
  along = warpSum(along, cut.lanes);
  if (there) {
    const float back = ours.floored ? 0.0f : along * ours.inverse / ours.norm;
    const float scale = 2.0f * dy[position / s.positions] * ours.inverse / static_cast<float>(s.positions);
    for (int i = first; i < s.channels; i += cut.lanes * V) {
      const Pack<T, V> x = load<V>(a + at + i), y = load<V>(b + at + i);
      float w[V];
      loadFloats(weight + i, w);
      Pack<T, V> result;
#pragma unroll
      for (int k = 0; k < V; ++k) {
        const float d = toFloat(x[k]) * ours.inverse - toFloat(y[k]) * theirs.inverse;
        result[k] = fromFloat<T>(scale * fmaf(-back, toFloat(x[k]), w[k] * d));
      }
      store(da + at + i, result);
    }
  }
}

template <class T>
constexpr int vectorOf(int channels) {
  return channels % kPack<T> == 0 ? kPack<T> : 1;
}

template <class T, class Fn>
cudaError_t withVectorOf(int channels, Fn&& fn) {
  if (vectorOf<T>(channels) > 1) return fn(std::integral_constant<int, kPack<T>>());
  return fn(std::integral_constant<int, 1>());
}

}  // namespace

template <class T>
size_t directionDistanceScratch(const Features& s) {
  return static_cast<size_t>(s.images) * Cut(s, vectorOf<T>(s.channels)).chunks * sizeof(float);
}

template <class T>
cudaError_t directionDistance(const Features& s, const T* a, const T* b, const float* weight, float* y, float* scratch,
                              cudaStream_t stream) {
  const Cut cut(s, vectorOf<T>(s.channels));
  const cudaError_t status = withVectorOf<T>(s.channels, [&](auto v) {
    return launch<distanceKernel<T, decltype(v)::value>>({dim3(s.images * cut.chunks), kThreads, 0, stream}, s, cut, a,
                                                         b, weight, scratch);
  });
  if (status != cudaSuccess) return status;
  return means(s.images, cut.chunks, static_cast<float>(s.positions), scratch, y, stream);
}

template <class T>
cudaError_t directionDistanceGrad(const Features& s, const T* a, const T* b, const float* weight, const float* dy,
                                  T* da, cudaStream_t stream) {
  const Cut cut(s, vectorOf<T>(s.channels));
  const int blocks = (s.images * s.positions + cut.groups - 1) / cut.groups;
  return withVectorOf<T>(s.channels, [&](auto v) {
    return launch<distanceGradKernel<T, decltype(v)::value>>({dim3(blocks), kThreads, 0, stream}, s, cut, a, b, weight,
                                                             dy, da);
  });
}

#define REFL_DIRECTION_DISTANCE(T)                                                                                \
  template size_t directionDistanceScratch<T>(const Features&);                                                   \
  template cudaError_t directionDistance(const Features&, const T*, const T*, const float*, float*, float*,       \
                                         cudaStream_t);                                                           \
  template cudaError_t directionDistanceGrad(const Features&, const T*, const T*, const float*, const float*, T*, \
                                             cudaStream_t);
REFL_DIRECTION_DISTANCE(float)
REFL_DIRECTION_DISTANCE(bf16)
REFL_DIRECTION_DISTANCE(f16)

}  // namespace refl::cuda
