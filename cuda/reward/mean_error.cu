// Mean squared or absolute differences of many pairs of tensors, added up: two launches for up to 160 pairs (optim's
// tables). Bytes: each element once, where a chain, a sum and an addition for each pair would write the differences and
// read them again (DiffBIR's 13 control features at 512 x 512 in bf16: 27 MB, apart 81 MB); 3 operations an element. A
// thread's part of a piece is added up in float32, pieces in double, in an order that depends on the sizes alone.
#include "optim/tables.h"
#include "reward/reward.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kPairs = 160;
using Pairs = Table<2, kPairs>;

template <bool kAbsolute>
__device__ __forceinline__ float plus(float sum, float a, float b) {
  const float d = a - b;
  return kAbsolute ? sum + fabsf(d) : fmaf(d, d, sum);
}

template <class T, bool kAbsolute>
__global__ void __launch_bounds__(kThreads)
    errorKernel(const __grid_constant__ Pairs table, double* __restrict__ partials) {
  constexpr int V = kPack<T>;
  const int set = setOf(table);
  const T* a = static_cast<const T*>(table.at[0][set]);
  const T* b = static_cast<const T*>(table.at[1][set]);
  float sum = 0.0f;
  const auto vector = [&](int i) {
    const Pack<T, V> x = load<V>(a + i), y = load<V>(b + i);
#pragma unroll
    for (int k = 0; k < V; ++k) sum = plus<kAbsolute>(sum, toFloat(x[k]), toFloat(y[k]));
  };
  const auto one = [&](int i) { sum = plus<kAbsolute>(sum, toFloat(a[i]), toFloat(b[i])); };
  eachOf<V>(table.count[set], static_cast<int>(blockIdx.x) - table.first[set], vector, one);
  const double total = blockSum<kWarps>(static_cast<double>(sum));
  if (threadIdx.x == 0) partials[blockIdx.x] = total / table.count[set];
}

struct Total {
  static __device__ float of(double total) { return static_cast<float>(total); }
};

}  // namespace

template <class T>
int meanErrorPartials(const std::vector<ErrorPair<T>>& pairs) {
  int count = 0;
  for (const ErrorPair<T>& pair : pairs) count += blocksOf(pair.count);
  return count;
}

template <class T>
size_t meanErrorScratch(const std::vector<ErrorPair<T>>& pairs) {
  return static_cast<size_t>(meanErrorPartials(pairs)) * sizeof(double);
}

template <class T>
cudaError_t meanError(const std::vector<ErrorPair<T>>& pairs, bool absolute, double* scratch, float* y,
                      cudaStream_t stream) {
  const auto put = [](Pairs& table, int i, const ErrorPair<T>& pair) {
    table.at[0][i] = const_cast<T*>(pair.a);
    table.at[1][i] = const_cast<T*>(pair.b);
  };
  double* to = scratch;
  const cudaError_t status = inTables<Pairs, kPairs>(pairs, put, [&](const Pairs& table, unsigned blocks) {
    double* partials = to;
    to += blocks;
    const Launch at = {dim3(blocks), kThreads, 0, stream};
    return absolute ? launch<errorKernel<T, true>>(at, table, partials)
                    : launch<errorKernel<T, false>>(at, table, partials);
  });
  if (status != cudaSuccess) return status;
  return launch<finishKernel<Total>>({dim3(1), kFinishThreads, 0, stream}, scratch, meanErrorPartials(pairs), y);
}

#define REFL_MEAN_ERROR(T)                                               \
  template size_t meanErrorScratch<T>(const std::vector<ErrorPair<T>>&); \
  template cudaError_t meanError(const std::vector<ErrorPair<T>>&, bool, double*, float*, cudaStream_t);
REFL_MEAN_ERROR(float)
REFL_MEAN_ERROR(bf16)
REFL_MEAN_ERROR(f16)

}  // namespace refl::cuda
