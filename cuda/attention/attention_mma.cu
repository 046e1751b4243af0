// Attention, forward, on tensor cores: bf16 and f16, heads of at most 128 features (core_mma.h).
//
// A block of four warps owns 128 queries of one head and walks over 64 keys at a time (32 above 64 features). Scores,
// their exponentials and the output stay in registers, in float32; the probabilities are rounded to T for the second
// product and summed before that. Two stages of keys and values and the queries are 48 KiB of shared memory at 64
// features, 64 KiB at 128.
//
// 4 N H Lq Lk D operations, half of them where causal, and Lq Lk exponentials a head. Bytes: q and y once, k and v once
// for each 128 queries, mostly from L2, and 4 bytes a query and head.
#include "attention/core_mma.h"

namespace refl::cuda {
namespace {

using namespace attn;

using Mma32 = MmaTile<32, 2, 64, 2>;
using Mma64 = MmaTile<64, 2, 64, 2>;
using Mma128 = MmaTile<128, 2, 32, 2>;

template <class T, class Tile>
__global__ void __launch_bounds__(kMmaThreads, Tile::kBlocks)
    attentionMmaKernel(AttentionShape shape, AttentionInputs<T> in, T* __restrict__ y, float* __restrict__ lse,
                       bool isAligned) {
  constexpr int kM = Tile::kM, kTiles = Tile::kTiles, kRows = kM * 2;
  SharedArena arena;
  T* queries = arena.take<T>(Tile::kOwnSize, 128);
  T* keys = arena.take<T>(2 * Tile::kOtherSize, 128);
  T* values = arena.take<T>(2 * Tile::kOtherSize, 128);

  const Block block((shape.queries + Tile::kOwn - 1) / Tile::kOwn, shape.heads);
  const int lane = static_cast<int>(threadIdx.x) % 32, t = lane % 4;
  const int warpRow = static_cast<int>(threadIdx.x) / 32 * kM * 16, first = block.tile * Tile::kOwn;
  const auto headOf = [&](auto* tensor, int length) {
    return Head<std::remove_pointer_t<decltype(tensor)>>(tensor, shape, block.item, block.head, length, isAligned);
  };
  const auto q = headOf(in.q, shape.queries), k = headOf(in.k, shape.keys), v = headOf(in.v, shape.keys);
  const T* bias = biasOf(in.bias, shape, block.item, block.head);
  const float scale = shape.scale * kLog2e;
  const auto queryOf = [&](int i) { return first + warpRow + i * 8 + lane / 4; };

  Sums<Tile> out = {};
  float maximum[kRows], sum[kRows] = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) maximum[i] = kLowest;

  const int end = shape.causal ? min(shape.keys, first + Tile::kOwn) : shape.keys;
  copyTile<Tile, Tile::kOwn>(queries, q, first);
  copyTile<Tile, Tile::kOther>(keys, k, 0);
  copyTile<Tile, Tile::kOther>(values, v, 0);
  cpAsyncCommit();
#pragma unroll 1
  for (int begin = 0, stage = 0; begin < end; begin += Tile::kOther, stage ^= 1) {
    cpAsyncWait<0>();
    __syncthreads();  // the other stage's tile has been multiplied by all
    if (begin + Tile::kOther < end) {
      copyTile<Tile, Tile::kOther>(keys + (stage ^ 1) * Tile::kOtherSize, k, begin + Tile::kOther);
      copyTile<Tile, Tile::kOther>(values + (stage ^ 1) * Tile::kOtherSize, v, begin + Tile::kOther);
    }
    cpAsyncCommit();

    Scores<Tile> s = {};
    addScores<Tile>(s, queries, warpRow, keys + stage * Tile::kOtherSize, shape.size);
    float top[kRows];
    const auto eachScore = [&](auto&& visit) {
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int n = 0; n < kTiles; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) visit(s[i / 2][n][i % 2 * 2 + e], i, n * 8 + t * 2 + e);
        }
      }
    };
    eachScore([&](float& score, int, int) { score *= scale; });
    if (bias) {
      eachScore([&](float& score, int i, int column) {
        const int query = queryOf(i), key = begin + column;
        if (query < shape.queries && key < shape.keys)
          score = fmaf(toFloat(bias[static_cast<size_t>(query) * shape.keys + key]), kLog2e, score);
        score = score < kLowest ? kLowest : score;  // NaN stays
      });
    }
    if (begin + Tile::kOther > (shape.causal ? first : shape.keys)) {  // as many keys as queries where causal
      eachScore([&](float& score, int i, int column) {
        const int key = begin + column;
        if (key >= shape.keys || (shape.causal && key > queryOf(i))) score = -INFINITY;
      });
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) top[i] = maximum[i];
    eachScore([&](float& score, int i, int) { top[i] = max(top[i], score); });
    warpMax(top, 4);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float shrink = fastExp2(maximum[i] - top[i]);
      maximum[i] = top[i];
      sum[i] *= shrink;
#pragma unroll
      for (int group = 0; group < Tile::kGroups; ++group) {
#pragma unroll
        for (int n = 0; n < 4; ++n) {
#pragma unroll
          for (int e = 0; e < 2; ++e) out[group][i / 2][n][i % 2 * 2 + e] *= shrink;
        }
      }
    }
    eachScore([&](float& score, int i, int) {
      score = fastExp2(score - top[i]);
      sum[i] += score;
    });
    Weights<Tile> weights;
    toWeights<T, Tile>(s, weights);
    addWeighed<Tile>(out, weights, values + stage * Tile::kOtherSize, shape.size);
  }

  warpSum(sum, 4);
  float inverse[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    inverse[i] = 1.0f / sum[i];
    if (t == 0 && queryOf(i) < shape.queries)
      lse[(static_cast<size_t>(block.item) * shape.heads + block.head) * shape.queries + queryOf(i)] =
          (maximum[i] + log2f(sum[i])) * kLn2;
  }
  writeSums<Tile>(headOf(y, shape.queries), first + warpRow, out, inverse);
}

}  // namespace

template <class T>
cudaError_t attentionMma(const AttentionShape& shape, const AttentionInputs<T>& in, T* y, float* lse,
                         cudaStream_t stream) {
  return withMmaTile<Mma32, Mma64, Mma128>(shape.size, [&](auto tile) {
    using Tile = decltype(tile);
    SharedLayout shared;
    shared.take<T>(Tile::kOwnSize, 128);
    for (int i = 0; i < 2; ++i) shared.take<T>(2 * Tile::kOtherSize, 128);
    const dim3 grid((shape.queries + Tile::kOwn - 1) / Tile::kOwn * shape.heads * shape.batch);
    return launch<attentionMmaKernel<T, Tile>>({grid, kMmaThreads, shared.bytes(), stream}, shape, in, y, lse,
                                               aligned<T>(shape, in.q, in.k, in.v, y));
  });
}

template cudaError_t attentionMma(const AttentionShape&, const AttentionInputs<bf16>&, bf16*, float*, cudaStream_t);
template cudaError_t attentionMma(const AttentionShape&, const AttentionInputs<f16>&, f16*, float*, cudaStream_t);

}  // namespace refl::cuda
