// The head of a judge: cosines of features, and the cross entropy of scaled scores.
//
// cosines: a warp a vector of a, which goes through the vectors of b it meets, and one a vector of b, which leaves its
// norm; what is read again comes from cache. cosinesGrad: a warp a vector of a or b, 128 elements or more at a time,
// over the vectors that it meets. Forwards 4, backwards 2 operations a pair of elements. Bytes: each feature once, and
// backwards its gradient: of a batch of 32 images and texts of CLIP ViT-H/14 0.4 MB with 16 bits, far below what a
// launch costs.
//
// crossEntropy: one block, a warp a row, for the few hundred scores of a batch. The two halves of the head stay apart:
// between them lie 4 bytes a score, and a reward needs the cosine alone. About 2 exponentials and 12 operations an
// element.
//
// Sums are float32, per lane in order of the row, over lanes, rows and warps in an order that never varies.
#include "reward/reward.h"
#include "simt/simt.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kThreads = 256, kWarps = kThreads / 32;

__device__ __forceinline__ int laneOf() { return static_cast<int>(threadIdx.x) % 32; }
__device__ __forceinline__ int warpOf() { return static_cast<int>(threadIdx.x) / 32; }

/** The sums of x y and of y^2 over `count` elements, to all lanes of the warp. */
template <int V, class T>
__device__ __forceinline__ float2 products(const T* x, const T* y, int count) {
  float sums[2] = {};
  for (int i = laneOf() * V; i < count; i += 32 * V) {
    const Pack<T, V> v = load<V>(x + i), w = load<V>(y + i);
#pragma unroll
    for (int k = 0; k < V; ++k) {
      sums[0] = fmaf(toFloat(v[k]), toFloat(w[k]), sums[0]);
      sums[1] = fmaf(toFloat(w[k]), toFloat(w[k]), sums[1]);
    }
  }
  warpSum(sums);
  return make_float2(sums[0], sums[1]);
}

__device__ __forceinline__ float inverseNorm(float squares, float most) { return min(rsqrtf(squares), most); }

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    cosinesKernel(const Vectors s, const T* __restrict__ a, const T* __restrict__ b, float* __restrict__ y,
                  float* __restrict__ inverseA, float* __restrict__ inverseB) {
  const int row = static_cast<int>(blockIdx.x) * kWarps + warpOf();
  const int rows = s.batches * s.k, others = s.batches * s.l;
  if (row < rows) {
    const int batch = row / s.k;
    const T* own = a + static_cast<size_t>(row) * s.width;
    const float inverse = inverseNorm(products<V>(own, own, s.width).x, s.most);
    if (laneOf() == 0) inverseA[row] = inverse;
    for (int j = 0; j < s.l; ++j) {
      const float2 sums = products<V>(own, b + static_cast<size_t>(batch * s.l + j) * s.width, s.width);
      if (laneOf() == 0) y[static_cast<size_t>(row) * s.l + j] = sums.x * inverse * inverseNorm(sums.y, s.most);
    }
  } else if (row < rows + others) {
    const T* own = b + static_cast<size_t>(row - rows) * s.width;
    const float inverse = inverseNorm(products<V>(own, own, s.width).x, s.most);
    if (laneOf() == 0) inverseB[row - rows] = inverse;
  }
}

/** One side of the gradient: rows x [batches, k, width], which meet `others` [batches, l, width]. y and dy of a pair
 * lie at x * ofX + other * ofOther of its batch. */
template <class T>
struct Side {
  const T *x, *others;
  const float *inverse, *inverseOther;
  T* dx;
  int k, l, ofX, ofOther;
};

/** dx = 1/|x| sum(dy (other / |other| - y x / |x|)), the second term only where the norm is no floor. */
template <int V, class T>
__device__ __forceinline__ void gradientOfRow(const Side<T>& s, int row, int width, float most, const float* y,
                                              const float* dy) {
  const int batch = row / s.k;
  const size_t first = static_cast<size_t>(batch) * s.k * s.l + static_cast<size_t>(row % s.k) * s.ofX;
  const T* own = s.x + static_cast<size_t>(row) * width;
  const float inverse = s.inverse[row];
  float along = 0.0f;
  for (int j = 0; j < s.l; ++j) along = fmaf(dy[first + j * s.ofOther], y[first + j * s.ofOther], along);
  const float back = inverse < most ? along * inverse : 0.0f;
  for (int i = laneOf() * V; i < width; i += 32 * V) {
    float sum[V] = {};
    for (int j = 0; j < s.l; ++j) {
      const int other = batch * s.l + j;
      const float scale = dy[first + j * s.ofOther] * s.inverseOther[other];
      const Pack<T, V> v = load<V>(s.others + static_cast<size_t>(other) * width + i);
#pragma unroll
      for (int k = 0; k < V; ++k) sum[k] = fmaf(scale, toFloat(v[k]), sum[k]);
    }
    Pack<T, V> v = load<V>(own + i);
#pragma unroll
    for (int k = 0; k < V; ++k) v[k] = fromFloat<T>(inverse * fmaf(-back, toFloat(v[k]), sum[k]));
    store(s.dx + static_cast<size_t>(row) * width + i, v);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads)
    cosinesGradKernel(const Side<T> a, const Side<T> b, int rowsOfA, int rowsOfB, int width, float most,
                      const float* __restrict__ y, const float* __restrict__ dy) {
  const int row = static_cast<int>(blockIdx.x) * kWarps + warpOf();
  if (row < rowsOfA)
    gradientOfRow<V>(a, row, width, most, y, dy);
  else if (row < rowsOfA + rowsOfB)
    gradientOfRow<V>(b, row - rowsOfA, width, most, y, dy);
}

/** Logits of a row times the scale, as what its cross entropy and slopes are made of; the warp's lanes share them. */
template <class T>
struct Row {
  const T* x;
  const T* shares;
  int number;
  float scale, most, logSum;

  __device__ __forceinline__ Row(const Logits<T>& s, int row, float factor)
      : x(s.x + static_cast<size_t>(row) * s.classes), shares(nullptr), number(0), scale(factor) {
    if (s.numbers != nullptr)
      number = s.numbers[row];
    else
      shares = s.shares + static_cast<size_t>(row) * s.classes;
    float largest = -INFINITY, sum = 0.0f;
    for (int i = laneOf(); i < s.classes; i += 32) largest = max(largest, scale * toFloat(x[i]));
    most = warpMax(largest);
    for (int i = laneOf(); i < s.classes; i += 32) sum += expf(scale * toFloat(x[i]) - most);
    logSum = logf(warpSum(sum));
  }
  __device__ __forceinline__ float logOf(int i) const { return scale * toFloat(x[i]) - most - logSum; }
  __device__ __forceinline__ float shareOf(int i) const {
    if (shares != nullptr) return toFloat(shares[i]);
    return i == number ? 1.0f : 0.0f;
  }
};

/** The sum of each warp's `own`, to the first thread. */
__device__ __forceinline__ float sumOfWarps(float own) {
  SIMT_SHARED(float, sums, [kWarps]);
  if (laneOf() == 0) sums[warpOf()] = own;
  __syncthreads();
  float total = 0.0f;
  for (int i = 0; i < kWarps; ++i) total += sums[i];
  return total;
}

template <class T>
__global__ void __launch_bounds__(kThreads) crossEntropyKernel(const Logits<T> s, float* __restrict__ y) {
  const float scale = s.logScale != nullptr ? expf(*s.logScale) : 1.0f;
  float own = 0.0f;
  for (int r = warpOf(); r < s.rows; r += kWarps) {
    const Row<T> row(s, r, scale);
    float sum = 0.0f;
    // A share of nothing counts nothing, also where the logarithm is infinite.
    for (int i = laneOf(); i < s.classes; i += 32)
      if (row.shareOf(i) != 0.0f) sum = fmaf(-row.shareOf(i), row.logOf(i), sum);
    own += warpSum(sum);
  }
  const float total = sumOfWarps(own);
  if (threadIdx.x == 0) *y = total / static_cast<float>(s.rows);
}

/** With z = scale x and p its softmax: dz = dy / rows (p sum(shares) - shares), dx = scale dz, dLogScale = sum(dx x).
 */
template <class T>
__global__ void __launch_bounds__(kThreads) crossEntropyGradKernel(const Logits<T> s, const float* __restrict__ dy,
                                                                   T* __restrict__ dx, float* __restrict__ dLogScale) {
  const float scale = s.logScale != nullptr ? expf(*s.logScale) : 1.0f;
  const float slope = *dy / static_cast<float>(s.rows) * scale;
  float own = 0.0f;
  for (int r = warpOf(); r < s.rows; r += kWarps) {
    const Row<T> row(s, r, scale);
    float shares = 0.0f, along = 0.0f;
    for (int i = laneOf(); i < s.classes; i += 32) shares += row.shareOf(i);
    const float all = warpSum(shares);
    for (int i = laneOf(); i < s.classes; i += 32) {
      const float d = slope * fmaf(expf(row.logOf(i)), all, -row.shareOf(i));
      dx[static_cast<size_t>(r) * s.classes + i] = fromFloat<T>(d);
      along = fmaf(d, toFloat(row.x[i]), along);
    }
    own += warpSum(along);
  }
  const float total = sumOfWarps(own);
  if (threadIdx.x == 0) *dLogScale = total;
}

/** fn(V): whole vectors of 16 bytes where `width` has them. */
template <class T, class Fn>
cudaError_t withVector(int width, Fn&& fn) {
  return width % kPack<T> == 0 ? fn(std::integral_constant<int, kPack<T>>()) : fn(std::integral_constant<int, 1>());
}

Launch warps(int rows, cudaStream_t stream) { return {dim3((rows + kWarps - 1) / kWarps), kThreads, 0, stream}; }

}  // namespace

template <class T>
cudaError_t cosines(const Vectors& s, const T* a, const T* b, float* y, float* inverseA, float* inverseB,
                    cudaStream_t stream) {
  return withVector<T>(s.width, [&](auto v) {
    return launch<cosinesKernel<T, decltype(v)::value>>(warps(s.batches * (s.k + s.l), stream), s, a, b, y, inverseA,
                                                        inverseB);
  });
}

template <class T>
cudaError_t cosinesGrad(const Vectors& s, const T* a, const T* b, const float* y, const float* inverseA,
                        const float* inverseB, const float* dy, T* da, T* db, cudaStream_t stream) {
  const int rowsOfA = s.batches * s.k, rowsOfB = s.batches * s.l;
  const Side<T> ofA = {a, b, inverseA, inverseB, da, s.k, s.l, s.l, 1};
  const Side<T> ofB = {b, a, inverseB, inverseA, db, s.l, s.k, 1, s.l};
  return withVector<T>(s.width, [&](auto v) {
    return launch<cosinesGradKernel<T, decltype(v)::value>>(warps(rowsOfA + rowsOfB, stream), ofA, ofB, rowsOfA,
                                                            rowsOfB, s.width, s.most, y, dy);
  });
}

template <class T>
cudaError_t crossEntropy(const Logits<T>& s, float* y, cudaStream_t stream) {
  return launch<crossEntropyKernel<T>>({dim3(1), kThreads, 0, stream}, s, y);
}

template <class T>
cudaError_t crossEntropyGrad(const Logits<T>& s, const float* dy, T* dx, float* dLogScale, cudaStream_t stream) {
  return launch<crossEntropyGradKernel<T>>({dim3(1), kThreads, 0, stream}, s, dy, dx, dLogScale);
}

#define REFL_HEAD(T)                                                                                             \
  template cudaError_t cosines(const Vectors&, const T*, const T*, float*, float*, float*, cudaStream_t);        \
  template cudaError_t cosinesGrad(const Vectors&, const T*, const T*, const float*, const float*, const float*, \
                                   const float*, T*, T*, cudaStream_t);                                          \
  template cudaError_t crossEntropy(const Logits<T>&, float*, cudaStream_t);                                     \
  template cudaError_t crossEntropyGrad(const Logits<T>&, const float*, T*, float*, cudaStream_t);
REFL_HEAD(float)
REFL_HEAD(bf16)
REFL_HEAD(f16)

}  // namespace refl::cuda
