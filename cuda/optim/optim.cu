// Optimizer updates and reductions over many tensors at once.
//
// A table (tables.h) holds 84 of AdamW's groups, 160 pairs, or 250 tensors.
//
// All of it is limited by memory. Bytes an element with 16-bit gradients (float32 ones): AdamW 26 (28), ema and
// accumulate 10 (12), assign 6 (8), reductions 2 (4); AdamW does some 40 operations, with exact division and square
// root.
//
// AdamW's factors of a step are worked out in double by one thread of a kernel before. Whether anything is written at
// all is read from device memory by each block.
//
// Reductions add in double, as the CPU does, so that squares neither overflow nor vanish: a thread its part of a piece,
// the block in shared memory, and a last block all pieces, each in an order that depends on the sizes alone.
#include <cfloat>

#include "optim/optim.h"
#include "optim/tables.h"

namespace refl::cuda {
namespace {

using namespace simt;

constexpr int kAdamwSets = 84;
struct AdamwTable : Table<4, kAdamwSets> {
  float weightDecay[kAdamwSets];
};
struct AdamwRates {
  float beta1, beta2, rest1, rest2, eps;
};
/** What a step's scalars give, in scratch memory: lr, the gradients' scale, lr / (1 - beta1^step), and
 * 1 / sqrt(1 - beta2^step). */
struct AdamwStep {
  float lr, scale, size, root;
};
static_assert(sizeof(AdamwStep) == kAdamwScratch, "the binder sizes the scratch");

__global__ void adamwStepKernel(const float* lr, const float* step, const float* scale, double beta1, double beta2,
                                AdamwStep* result) {
  const double rate = *lr, n = *step;
  result->lr = *lr;
  result->scale = *scale;
  result->size = static_cast<float>(rate / (1 - pow(beta1, n)));
  result->root = static_cast<float>(1 / sqrt(1 - pow(beta2, n)));
}

struct AdamwElement {
  float param, m, v;
  __device__ __forceinline__ void update(float grad, const AdamwRates& rates, const AdamwStep& step, float keep) {
    const float g = step.scale * grad;
    m = fmaf(rates.beta1, m, rates.rest1 * g);
    v = fmaf(rates.beta2, v, rates.rest2 * (g * g));
    param = fmaf(keep, param, -(step.size * m / fmaf(sqrtf(v), step.root, rates.eps)));
  }
};

template <class G>
__global__ void __launch_bounds__(kThreads)
    adamwKernel(const __grid_constant__ AdamwTable table, const AdamwRates rates, const AdamwStep* __restrict__ factors,
                const float* __restrict__ ok) {
  if (!(*ok > 0)) return;
  const int set = setOf(table);
  float* param = static_cast<float*>(table.at[0][set]);
  const G* grad = static_cast<const G*>(table.at[1][set]);
  float* m = static_cast<float*>(table.at[2][set]);
  float* v = static_cast<float*>(table.at[3][set]);
  const AdamwStep step = *factors;
  const float keep = fmaf(-step.lr, table.weightDecay[set], 1.0f);
  const auto vector = [&](int i) {
    Pack<float, 4> p = load<4>(param + i), mean = load<4>(m + i), square = load<4>(v + i);
    const Pack<G, 4> g = load<4>(grad + i);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      AdamwElement e = {p[k], mean[k], square[k]};
      e.update(toFloat(g[k]), rates, step, keep);
      p[k] = e.param;
      mean[k] = e.m;
      square[k] = e.v;
    }
    store(param + i, p);
    store(m + i, mean);
    store(v + i, square);
  };
  const auto one = [&](int i) {
    AdamwElement e = {param[i], m[i], v[i]};
    e.update(toFloat(grad[i]), rates, step, keep);
    param[i] = e.param;
    m[i] = e.m;
    v[i] = e.v;
  };
  eachOf<4>(table.count[set], static_cast<int>(blockIdx.x) - table.first[set], vector, one);
}

constexpr int kPairs = 160;
using PairTable = Table<2, kPairs>;

struct Ema {
  float rate;
  __device__ explicit Ema(const float* decay) : rate(1.0f - *decay) {}
  __device__ float operator()(float target, float value) const { return fmaf(rate, value - target, target); }
};
struct Accumulate {
  float scale;
  __device__ explicit Accumulate(const float* scale) : scale(*scale) {}
  __device__ float operator()(float target, float value) const { return fmaf(scale, value, target); }
};
struct Assign {
  __device__ explicit Assign(const float*) {}
  __device__ float operator()(float, float value) const { return value; }
};

/** Without `ok`, always. A load of the target that Op does not need is not made. */
template <class Op, class G>
__global__ void __launch_bounds__(kThreads) pairKernel(const __grid_constant__ PairTable table,
                                                       const float* __restrict__ scalar, const float* __restrict__ ok) {
  if (ok != nullptr && !(*ok > 0)) return;
  const int set = setOf(table);
  float* target = static_cast<float*>(table.at[0][set]);
  const G* value = static_cast<const G*>(table.at[1][set]);
  const Op op(scalar);
  const auto vector = [&](int i) {
    Pack<float, 4> t = load<4>(target + i);
    const Pack<G, 4> v = load<4>(value + i);
#pragma unroll
    for (int k = 0; k < 4; ++k) t[k] = op(t[k], toFloat(v[k]));
    store(target + i, t);
  };
  const auto one = [&](int i) { target[i] = op(target[i], toFloat(value[i])); };
  eachOf<4>(table.count[set], static_cast<int>(blockIdx.x) - table.first[set], vector, one);
}

constexpr int kTensors = 250;
using ElementTable = Table<1, kTensors>;

struct Squares {
  static __device__ __forceinline__ double of(float x) {
    const double wide = x;
    return wide * wide;
  }
};
struct NonFinite {
  static __device__ __forceinline__ double of(float x) { return fabsf(x) <= FLT_MAX ? 0.0 : 1.0; }
};

template <class Of, class G>
__global__ void __launch_bounds__(kThreads)
    sumKernel(const __grid_constant__ ElementTable table, double* __restrict__ partials) {
  constexpr int V = kPack<G>;
  const int set = setOf(table);
  const G* x = static_cast<const G*>(table.at[0][set]);
  double sum = 0;
  const auto vector = [&](int i) {
    const Pack<G, V> v = load<V>(x + i);
#pragma unroll
    for (int k = 0; k < V; ++k) sum += Of::of(toFloat(v[k]));
  };
  const auto one = [&](int i) { sum += Of::of(toFloat(x[i])); };
  eachOf<V>(table.count[set], static_cast<int>(blockIdx.x) - table.first[set], vector, one);
  const double total = blockSum<kWarps>(sum);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

struct Root {
  static __device__ float of(double total) { return static_cast<float>(sqrt(total)); }
};
struct None {
  static __device__ float of(double total) { return total == 0 ? 1.0f : 0.0f; }
};

template <class Op, class G>
cudaError_t updatePairs(const float* scalar, const float* ok, const std::vector<Pair<G>>& pairs, cudaStream_t stream) {
  const auto put = [](PairTable& table, int i, const Pair<G>& pair) {
    table.at[0][i] = pair.target;
    table.at[1][i] = const_cast<G*>(pair.value);
  };
  return inTables<PairTable, kPairs>(pairs, put, [&](const PairTable& table, unsigned blocks) {
    return launch<pairKernel<Op, G>>({blocks, kThreads, 0, stream}, table, scalar, ok);
  });
}

template <class Of, class G>
cudaError_t sumAll(const std::vector<Elements<G>>& tensors, double* partials, cudaStream_t stream) {
  const auto put = [](ElementTable& table, int i, const Elements<G>& x) { table.at[0][i] = const_cast<G*>(x.at); };
  return inTables<ElementTable, kTensors>(tensors, put, [&](const ElementTable& table, unsigned blocks) {
    double* to = partials;
    partials += blocks;
    return launch<sumKernel<Of, G>>({blocks, kThreads, 0, stream}, table, to);
  });
}

}  // namespace

template <class G>
cudaError_t adamw(const float* lr, const float* step, const float* scale, const float* ok,
                  const AdamwConstants& constants, const std::vector<AdamwGroup<G>>& groups, void* scratch,
                  cudaStream_t stream) {
  auto* factors = static_cast<AdamwStep*>(scratch);
  const auto [beta1, beta2, eps] = constants;
  const cudaError_t error = launch<adamwStepKernel>({1, 1, 0, stream}, lr, step, scale, beta1, beta2, factors);
  if (error != cudaSuccess) return error;
  const AdamwRates rates = {static_cast<float>(beta1), static_cast<float>(beta2), static_cast<float>(1 - beta1),
                            static_cast<float>(1 - beta2), static_cast<float>(eps)};
  const auto put = [](AdamwTable& table, int i, const AdamwGroup<G>& group) {
    table.at[0][i] = group.param;
    table.at[1][i] = const_cast<G*>(group.grad);
    table.at[2][i] = group.m;
    table.at[3][i] = group.v;
    table.weightDecay[i] = group.weightDecay;
  };
  return inTables<AdamwTable, kAdamwSets>(groups, put, [&](const AdamwTable& table, unsigned blocks) {
    return launch<adamwKernel<G>>({blocks, kThreads, 0, stream}, table, rates, factors, ok);
  });
}

template <class G>
cudaError_t ema(const float* decay, const float* ok, const std::vector<Pair<G>>& pairs, cudaStream_t stream) {
  return updatePairs<Ema>(decay, ok, pairs, stream);
}
template <class G>
cudaError_t accumulate(const float* scale, const std::vector<Pair<G>>& pairs, cudaStream_t stream) {
  return updatePairs<Accumulate>(scale, nullptr, pairs, stream);
}
template <class G>
cudaError_t assign(const float* ok, const std::vector<Pair<G>>& pairs, cudaStream_t stream) {
  return updatePairs<Assign>(nullptr, ok, pairs, stream);
}

int partialsOf(int count) { return blocksOf(count); }

template <class G>
cudaError_t sumSquares(const std::vector<Elements<G>>& tensors, double* partials, cudaStream_t stream) {
  return sumAll<Squares>(tensors, partials, stream);
}
template <class G>
cudaError_t countNonFinite(const std::vector<Elements<G>>& tensors, double* partials, cudaStream_t stream) {
  return sumAll<NonFinite>(tensors, partials, stream);
}

cudaError_t finishNorm(const double* partials, int count, float* y, cudaStream_t stream) {
  return launch<finishKernel<Root>>({1, kFinishThreads, 0, stream}, partials, count, y);
}
cudaError_t finishFinite(const double* partials, int count, float* y, cudaStream_t stream) {
  return launch<finishKernel<None>>({1, kFinishThreads, 0, stream}, partials, count, y);
}

#define REFL_OPTIM(G)                                                                                       \
  template cudaError_t adamw(const float*, const float*, const float*, const float*, const AdamwConstants&, \
                             const std::vector<AdamwGroup<G>>&, void*, cudaStream_t);                       \
  template cudaError_t ema(const float*, const float*, const std::vector<Pair<G>>&, cudaStream_t);          \
  template cudaError_t accumulate(const float*, const std::vector<Pair<G>>&, cudaStream_t);                 \
  template cudaError_t assign(const float*, const std::vector<Pair<G>>&, cudaStream_t);                     \
  template cudaError_t sumSquares(const std::vector<Elements<G>>&, double*, cudaStream_t);                  \
  template cudaError_t countNonFinite(const std::vector<Elements<G>>&, double*, cudaStream_t);
REFL_OPTIM(float)
REFL_OPTIM(bf16)
REFL_OPTIM(f16)

}  // namespace refl::cuda
