// The gradient of attention by q, k and v, without tensor cores: float32 products (core.h), for float32 and large
// heads.
//
// With p the probabilities, recomputed from the log-sum-exp, and ds = p (dy v^T - delta):
//   1. delta = sum(y dy): eight lanes for each head of a query. One read of y and dy.
//   2. dq = scale ds k: a block owns queries of one head and walks over its keys. 6 N H Lq Lk D operations.
//   3. dk = scale ds^T q and dv = p^T dy: a block owns keys and walks over the queries. 8 N H Lq Lk D operations. Above
//      160 features, where registers hold one of the two sums, each has a launch of its own: 10 in all.
// A block of 128 threads owns 64 rows, or 32 above 64 features, against 32 others at a time. Each sum is one thread's,
// over the other rows in order. Bytes: what is owned is read and written once; what it meets once for each block of
// owned rows, mostly from L2.
#include "attention/core_grad.h"

namespace refl::cuda {
namespace {

using namespace attn;

constexpr int kDeltaThreads = 256, kDeltaLanes = 8;

template <class T, int V>
__global__ void __launch_bounds__(kDeltaThreads)
    attentionDeltaKernel(AttentionShape shape, const T* __restrict__ y, const T* __restrict__ dy,
                         float* __restrict__ delta) {
  const long long all = static_cast<long long>(shape.batch) * shape.queries * shape.heads;
  const long long at = static_cast<long long>(blockIdx.x) * (kDeltaThreads / kDeltaLanes) + threadIdx.x / kDeltaLanes;
  float sum = 0;
  if (at < all) {
    for (int d = static_cast<int>(threadIdx.x) % kDeltaLanes * V; d < shape.size; d += kDeltaLanes * V) {
      const Pack<T, V> a = load<V>(y + at * shape.size + d), b = load<V>(dy + at * shape.size + d);
#pragma unroll
      for (int k = 0; k < V; ++k) sum = fmaf(toFloat(a[k]), toFloat(b[k]), sum);
    }
  }
  sum = warpSum(sum, kDeltaLanes);
  if (at < all && threadIdx.x % kDeltaLanes == 0) {
    const long long token = at / shape.heads, head = at % shape.heads;
    delta[(token / shape.queries * shape.heads + head) * shape.queries + token % shape.queries] = sum;
  }
}

enum class Wanted { kQueries, kKeys, kValues, kKeysAndValues };

template <class T, class Tile, Wanted kWanted>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    attentionGradKernel(AttentionShape shape, AttentionGradInputs<T> in, T* __restrict__ dq, T* __restrict__ dk,
                        T* __restrict__ dv, bool isAligned) {
  constexpr bool kOwnKeys = kWanted != Wanted::kQueries;
  constexpr bool kByScores = kWanted != Wanted::kValues;  // dq or dk
  constexpr bool kByValues = kWanted == Wanted::kValues || kWanted == Wanted::kKeysAndValues;
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns, kChunks = Tile::kChunks, kOther = Tile::kOther;
  SharedArena arena;
  // Rows whose products are the scores, and rows whose products are the probabilities' slopes.
  float* own = arena.take<float>(Tile::kOwn * Tile::kPitch);
  float* other = arena.take<float>(kOther * Tile::kPitch);
  float* ownSloped = arena.take<float>(Tile::kOwn * Tile::kPitch);
  float* otherSloped = arena.take<float>(kOther * Tile::kPitch);
  float* weights = arena.take<float>(Tile::kOwn * Tile::kWeightPitch);

  const int ownRows = kOwnKeys ? shape.keys : shape.queries;
  const Block block((ownRows + Tile::kOwn - 1) / Tile::kOwn, shape.heads);
  const Place<Tile> place;
  const int first = block.tile * Tile::kOwn;
  const auto headOf = [&](auto* tensor, int length) {
    return Head<std::remove_pointer_t<decltype(tensor)>>(tensor, shape, block.item, block.head, length, isAligned);
  };
  const auto q = headOf(in.q, shape.queries), dy = headOf(in.dy, shape.queries);
  const auto k = headOf(in.k, shape.keys), v = headOf(in.v, shape.keys);
  const T* bias = biasOf(in.bias, shape, block.item, block.head);
  const size_t rowStart = (static_cast<size_t>(block.item) * shape.heads + block.head) * shape.queries;

  Statistics<kOwnKeys ? kColumns : kRows> statistics;
  if (!kOwnKeys)
    statistics.read(in.lse + rowStart, in.delta + rowStart, shape.queries, [&](int i) { return first + place.row(i); });

  const auto copyOwn = [&](int chunk) {
    copyRows<Tile, Tile::kOwn>(own, kOwnKeys ? k : q, first, chunk);
    if (kByScores) copyRows<Tile, Tile::kOwn>(ownSloped, kOwnKeys ? v : dy, first, chunk);
  };
  if (kChunks == 1) copyOwn(0);

  float byScores[kByScores ? kChunks : 1][kRows][Tile::kFeatures] = {};
  float byValues[kByValues ? kChunks : 1][kRows][Tile::kFeatures] = {};
  // Causal: queries see no later key, and keys no earlier query.
  const int start = kOwnKeys && shape.causal ? first / kOther * kOther : 0;
  const int length = kOwnKeys ? shape.queries : shape.keys;
  const int end = !kOwnKeys && shape.causal ? min(length, first + Tile::kOwn) : length;
#pragma unroll 1
  for (int begin = start; begin < end; begin += kOther) {
    float s[kRows][kColumns] = {}, t[kRows][kColumns] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      __syncthreads();
      if (kChunks > 1) copyOwn(chunk);
      copyRows<Tile, kOther>(other, kOwnKeys ? q : k, begin, chunk);
      if (kByScores || kChunks == 1) copyRows<Tile, kOther>(otherSloped, kOwnKeys ? dy : v, begin, chunk);
      __syncthreads();
      addScores<Tile>(s, own, other, shape.size - chunk * Tile::kWidth);
      if (kByScores) addScores<Tile>(t, ownSloped, otherSloped, shape.size - chunk * Tile::kWidth);
    }
    if (kOwnKeys)
      statistics.read(in.lse + rowStart, in.delta + rowStart, shape.queries,
                      [&](int j) { return begin + place.column(j); });
    slopes<kOwnKeys, Tile>(shape, bias, first, begin, statistics, s, t);

    // A row's weights are written and read by the same warp; both sums take theirs from the same place.
    if (kByValues) {
      keepWeights<Tile>(weights, s);
      __syncwarp();
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        if (kChunks > 1) {
          __syncthreads();
          copyRows<Tile, kOther>(otherSloped, dy, begin, chunk);
          __syncthreads();
        }
        addWeighed<Tile>(byValues[chunk], weights, otherSloped, length - begin);
      }
      __syncwarp();
    }
    if (kByScores) {
      keepWeights<Tile>(weights, t);
      __syncwarp();
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        if (kChunks > 1) {
          __syncthreads();
          copyRows<Tile, kOther>(other, kOwnKeys ? q : k, begin, chunk);
          __syncthreads();
        }
        addWeighed<Tile>(byScores[chunk], weights, other, length - begin);
      }
    }
  }

  float scale[kRows], one[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    scale[i] = shape.scale;
    one[i] = 1;
  }
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    if constexpr (kByScores) writeRows<Tile>(headOf(kOwnKeys ? dk : dq, ownRows), first, chunk, byScores[chunk], scale);
    if constexpr (kByValues) writeRows<Tile>(headOf(dv, ownRows), first, chunk, byValues[chunk], one);
  }
}

template <class T, class Tile, Wanted kWanted>
cudaError_t launchGrad(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dq, T* dk, T* dv,
                       cudaStream_t stream) {
  SharedLayout shared;
  for (int i = 0; i < 2; ++i)
    shared.take<float>(Tile::kOwn * Tile::kPitch).template take<float>(Tile::kOther * Tile::kPitch);
  shared.take<float>(Tile::kOwn * Tile::kWeightPitch);
  const int rows = kWanted == Wanted::kQueries ? shape.queries : shape.keys;
  const dim3 grid((rows + Tile::kOwn - 1) / Tile::kOwn * shape.heads * shape.batch);
  return launch<attentionGradKernel<T, Tile, kWanted>>({grid, Tile::kThreads, shared.bytes(), stream}, shape, in, dq,
                                                       dk, dv, aligned<T>(shape, in.q, in.k, in.v, in.dy, dq, dk, dv));
}

}  // namespace

template <class T>
cudaError_t attentionDelta(const AttentionShape& shape, const T* y, const T* dy, float* delta, cudaStream_t stream) {
  const long long rows = static_cast<long long>(shape.batch) * shape.queries * shape.heads;
  constexpr int kEach = kDeltaThreads / kDeltaLanes;
  const Launch at = {dim3(static_cast<unsigned>((rows + kEach - 1) / kEach)), kDeltaThreads, 0, stream};
  return aligned<T>(shape, y, dy) ? launch<attentionDeltaKernel<T, kPack<T>>>(at, shape, y, dy, delta)
                                  : launch<attentionDeltaKernel<T, 1>>(at, shape, y, dy, delta);
}

template <class T>
cudaError_t attentionGradQueries(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dq,
                                 cudaStream_t stream) {
  const auto run = [&](auto tile) {
    return launchGrad<T, decltype(tile), Wanted::kQueries>(shape, in, dq, nullptr, nullptr, stream);
  };
  if constexpr (sizeof(T) == 2) {
    if (shape.size <= kMostMmaHeadSize) return attentionGradQueriesMma(shape, in, dq, stream);
    return shape.size <= 160 ? run(Grad160()) : run(Grad512());
  } else {
    return withTile<Grad32, Grad64, Grad128, Grad160, Grad512>(shape.size, run);
  }
}

template <class T>
cudaError_t attentionGradKeys(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dk, T* dv,
                              cudaStream_t stream) {
  const auto run = [&](auto tile) {
    using Tile = decltype(tile);
    if constexpr (Tile::kChunks == 1) {
      return launchGrad<T, Tile, Wanted::kKeysAndValues>(shape, in, nullptr, dk, dv, stream);
    } else {
      const cudaError_t error = launchGrad<T, Tile, Wanted::kKeys>(shape, in, nullptr, dk, nullptr, stream);
      return error != cudaSuccess ? error
                                  : launchGrad<T, Tile, Wanted::kValues>(shape, in, nullptr, nullptr, dv, stream);
    }
  };
  if constexpr (sizeof(T) == 2) {
    if (shape.size <= kMostMmaHeadSize) return attentionGradKeysMma(shape, in, dk, dv, stream);
    return shape.size <= 160 ? run(Grad160()) : run(Grad512());
  } else {
    return withTile<Grad32, Grad64, Grad128, Grad160, Grad512>(shape.size, run);
  }
}

#define REFL_ATTENTION_GRAD(T)                                                                                       \
  template cudaError_t attentionDelta(const AttentionShape&, const T*, const T*, float*, cudaStream_t);              \
  template cudaError_t attentionGradQueries(const AttentionShape&, const AttentionGradInputs<T>&, T*, cudaStream_t); \
  template cudaError_t attentionGradKeys(const AttentionShape&, const AttentionGradInputs<T>&, T*, T*, cudaStream_t);
REFL_ATTENTION_GRAD(float)
REFL_ATTENTION_GRAD(bf16)
REFL_ATTENTION_GRAD(f16)

}  // namespace refl::cuda
