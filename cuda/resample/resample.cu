// Two kernels. The first writes a table to scratch: for each axis and each result the first pixel that it is made of
// and the weights from there on, a thread a weight. The second has a thread for each result pixel's vector of 16 bytes
// along the channels (one channel where their number is no whole number of vectors), which adds up taps.y * taps.x
// pixels in float32, 2 operations each. Each result is written once; a pixel is read by about taps.y * taps.x * results
// / pixels threads, neighbours at the same time, from cache after the first: limited by memory.
//
// Result i of a resize from `in` to `out` pixels is centred at (i + 1/2) in / out. The filter's argument at pixel j is
// (j + 1/2 - centre) / stretch, where stretch = max(1, in / out) with antialias and else 1. Multiplied by 2 out stretch
// it is a whole number, which is why pixels and weights come out the same whatever the sizes: only the polynomials are
// rounded. Without antialias, pixels beyond the border are the border's; with it, the weights are normalised.
#include "resample/resample.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256;

int radiusOf(Filter filter) { return filter == Filter::bicubic ? 2 : 1; }

/** floor(a / b) for b > 0. */
__device__ __forceinline__ int floorDiv(int64_t a, int b) {
  const int64_t quotient = a / b;
  return static_cast<int>(a % b < 0 ? quotient - 1 : quotient);
}

/** Keys' cubic convolution kernel with the free parameter a. */
__device__ __forceinline__ float cubic(float x, float a) {
  if (x < 1.0f) return fmaf(fmaf(a + 2.0f, x, -(a + 3.0f)) * x, x, 1.0f);
  return x < 2.0f ? a * fmaf(fmaf(x - 5.0f, x, 8.0f), x, -4.0f) : 0.0f;
}

/** Of one axis; computed by the kernel's threads, each for itself. */
struct Weights {
  Filter filter;
  bool antialias;
  int radius, scale;  // scale = out * stretch
  int in, out;

  __device__ __forceinline__ float at(int i, int j) const {
    const int64_t distance = static_cast<int64_t>(2 * j + 1) * out - static_cast<int64_t>(2 * i + 1) * in;
    const float x = fabsf(static_cast<float>(distance)) / (2.0f * static_cast<float>(scale));
    return filter == Filter::bilinear ? max(0.0f, 1.0f - x) : cubic(x, antialias ? -0.5f : -0.75f);
  }
  /** The first place k, of `to` beside one of `from`, whose filter reaches place i. */
  __device__ __forceinline__ int first(int i, int from, int to) const {
    return floorDiv(static_cast<int64_t>(2 * i + 1) * from - static_cast<int64_t>(2 * radius) * scale - to, 2 * to) + 1;
  }
  /** What pixel j counts for result i; 0 where there is no such pixel or result. */
  __device__ __forceinline__ float of(int i, int j) const {
    if (i >= out) return 0.0f;
    if (filter == Filter::nearest) return static_cast<int64_t>(i) * in / out == j ? 1.0f : 0.0f;
    const int start = first(i, in, out), taps = (2 * radius * scale + out - 1) / out;
    float mine = 0.0f, total = 0.0f;
    for (int k = start; k < start + taps; ++k) {
      const int pixel = min(max(k, 0), in - 1);
      const float weight = antialias && pixel != k ? 0.0f : at(i, k);
      total += weight;
      if (pixel == j) mine += weight;
    }
    return antialias ? mine / total : mine;
  }
};

/** The table of one axis: `first` pixels and `weights` [results, taps]. */
struct Table {
  int* first;
  float* weights;
};

struct Tables {
  Table y, x;
};

__device__ __forceinline__ void writeWeight(const ResizeShape& s, const ResizeAxis& axis, const Table& table,
                                            int radius, int entry) {
  const int result = entry / axis.taps, tap = entry - result * axis.taps;
  const Weights weights = {s.filter, s.antialias, radius, s.antialias ? max(axis.in, axis.out) : axis.out,
                           axis.in,  axis.out};
  int first;
  if (s.filter == Filter::nearest)  // the adjoint's: from ceil(result * out / in) on
    first = static_cast<int>((static_cast<int64_t>(result) * axis.out + axis.in - 1) / axis.in);
  else
    first = max(s.adjoint ? weights.first(result, axis.out, axis.in) : weights.first(result, axis.in, axis.out), 0);
  table.weights[entry] = s.adjoint ? weights.of(first + tap, result) : weights.of(result, first + tap);
  if (tap == 0) table.first[result] = first;
}

__global__ void __launch_bounds__(kThreads)
    tableKernel(const __grid_constant__ ResizeShape s, Tables tables, int radius) {
  const int entry = static_cast<int>(blockIdx.x * kThreads + threadIdx.x), down = s.y.results * s.y.taps;
  if (entry < down)
    writeWeight(s, s.y, tables.y, radius, entry);
  else if (entry < down + s.x.results * s.x.taps)
    writeWeight(s, s.x, tables.x, radius, entry - down);
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads) resizeKernel(const __grid_constant__ ResizeShape s, const Tables tables,
                                                         const T* __restrict__ x, T* __restrict__ y, unsigned vectors) {
  const unsigned vector = blockIdx.x * kThreads + threadIdx.x;
  if (vector < vectors) {
    const unsigned across = s.channels / V, pixel = vector / across, row = pixel / s.x.results;
    const unsigned channel = (vector - pixel * across) * V, column = pixel - row * s.x.results;
    const unsigned image = row / s.y.results, height = s.adjoint ? s.y.out : s.y.in,
                   width = s.adjoint ? s.x.out : s.x.in;
    const unsigned line = row - image * s.y.results;
    const unsigned top = image * height + static_cast<unsigned>(tables.y.first[line]),
                   left = static_cast<unsigned>(tables.x.first[column]);
    const float* down = tables.y.weights + static_cast<size_t>(line) * s.y.taps;
    const float* right = tables.x.weights + static_cast<size_t>(column) * s.x.taps;
    float sum[V] = {};
    for (int i = 0; i < s.y.taps; ++i) {
      for (int j = 0; j < s.x.taps; ++j) {
        const float weight = down[i] * right[j];
        if (weight != 0.0f) {  // else the pixel may not exist
          const Pack<T, V> value =
              load<V>(x + (static_cast<size_t>(top + i) * width + left + j) * s.channels + channel);
#pragma unroll
          for (int c = 0; c < V; ++c) sum[c] = fmaf(weight, toFloat(value[c]), sum[c]);
        }
      }
    }
    Pack<T, V> result;
#pragma unroll
    for (int c = 0; c < V; ++c) result[c] = fromFloat<T>(sum[c]);
    store(y + static_cast<size_t>(vector) * V, result);
  }
}

/** The most places of `to` that the filter around one of `from` reaches. */
int tapsOf(const ResizeShape& s, int in, int out) {
  const int from = s.adjoint ? out : in;
  if (s.filter == Filter::nearest) return (from + in - 1) / in;
  const int64_t reach = 2 * int64_t{radiusOf(s.filter)} * (s.antialias && in > out ? in : out),
                to = s.adjoint ? in : out;
  return static_cast<int>((reach + to - 1) / to);
}

}  // namespace

ResizeShape makeResize(Filter filter, bool antialias, bool adjoint, unsigned images, const int (&height)[2],
                       const int (&width)[2], unsigned channels) {
  ResizeShape s = {filter, antialias, adjoint, images, channels, {}, {}};
  const auto axisOf = [&](const int(&size)[2]) -> ResizeAxis {
    return {size[0], size[1], adjoint ? size[0] : size[1], tapsOf(s, size[0], size[1])};
  };
  s.y = axisOf(height);
  s.x = axisOf(width);
  return s;
}

size_t resizeScratch(const ResizeShape& s) {
  const auto axis = [](const ResizeAxis& a) { return static_cast<size_t>(a.results) * (a.taps + 1); };
  return (axis(s.y) + axis(s.x)) * 4;
}

template <class T>
cudaError_t resize(const ResizeShape& s, const T* x, T* y, void* scratch, cudaStream_t stream) {
  const unsigned down = s.y.results * s.y.taps, across = s.x.results * s.x.taps;
  Tables tables;
  tables.y.weights = static_cast<float*>(scratch);
  tables.x.weights = tables.y.weights + down;
  tables.y.first = reinterpret_cast<int*>(tables.x.weights + across);
  tables.x.first = tables.y.first + s.y.results;
  const cudaError_t status = launch<tableKernel>({(down + across + kThreads - 1) / kThreads, kThreads, 0, stream}, s,
                                                 tables, radiusOf(s.filter));
  if (status != cudaSuccess) return status;
  const auto with = [&](auto v) {
    constexpr int V = decltype(v)::value;
    const unsigned vectors = s.images * (s.y.results * s.x.results) * (s.channels / V);
    return launch<resizeKernel<T, V>>({(vectors + kThreads - 1) / kThreads, kThreads, 0, stream}, s, tables, x, y,
                                      vectors);
  };
  return s.channels % kPack<T> == 0 ? with(std::integral_constant<int, kPack<T>>())
                                    : with(std::integral_constant<int, 1>());
}

template cudaError_t resize(const ResizeShape&, const float*, float*, void*, cudaStream_t);
template cudaError_t resize(const ResizeShape&, const bf16*, bf16*, void*, cudaStream_t);
template cudaError_t resize(const ResizeShape&, const f16*, f16*, void*, cudaStream_t);

}  // namespace refl::cuda
