// The gradient of attention by q, k and v on tensor cores: bf16 and f16, heads of at most 128 features (core_mma.h).
// The passes are those of attention_grad.cu: a block owns queries of one head and walks over its keys for dq, or owns
// keys and walks over the queries for dk and dv.
//
// Scores s = own other^T and slopes t = own' other'^T (dy v^T, or v dy^T) are two sets of accumulators. They become the
// probabilities p and ds = p (t - delta) in place, and, rounded to T, the left operands of the sums: dq = scale ds k;
// dk = scale ds^T q and dv = p^T dy, where the block's rows being keys makes the accumulators the transposes.
//
// A block of four warps owns 64 rows, or 128 queries up to 64 features, against 64 others, or 32 where it owns that
// many or has more features. Shared memory holds both own tiles and two stages of both others: 48 KiB at 64 features,
// 64 KiB at 128; and, of queries that are met, two stages of the log-sum-exp and delta. Operations: 6 N H Lq Lk D for
// dq, 8 for dk and dv, half of them where causal, each with Lq Lk exponentials a head. Bytes: what is owned once, what
// it meets once for each block, mostly from L2. Sums are float32, over the other rows in order.
#include "attention/core_mma.h"

namespace refl::cuda {
namespace {

using namespace attn;

template <class T, class Tile, bool kOwnKeys>
__global__ void __launch_bounds__(kMmaThreads, Tile::kBlocks)
    attentionGradMmaKernel(AttentionShape shape, AttentionGradInputs<T> in, T* __restrict__ dq, T* __restrict__ dk,
                           T* __restrict__ dv, bool isAligned) {
  constexpr int kOther = Tile::kOther, kRows = Tile::kM * 2;
  SharedArena arena;
  // Rows whose products are the scores, and rows whose products are the probabilities' slopes.
  T* own = arena.take<T>(Tile::kOwnSize, 128);
  T* ownSloped = arena.take<T>(Tile::kOwnSize, 128);
  T* other = arena.take<T>(2 * Tile::kOtherSize, 128);
  T* otherSloped = arena.take<T>(2 * Tile::kOtherSize, 128);
  float* statistics = kOwnKeys ? arena.take<float>(4 * kOther) : nullptr;

  const int ownRows = kOwnKeys ? shape.keys : shape.queries, length = kOwnKeys ? shape.queries : shape.keys;
  const Block block((ownRows + Tile::kOwn - 1) / Tile::kOwn, shape.heads);
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warpRow = static_cast<int>(threadIdx.x) / 32 * Tile::kM * 16, first = block.tile * Tile::kOwn;
  const auto headOf = [&](auto* tensor, int rows) {
    return Head<std::remove_pointer_t<decltype(tensor)>>(tensor, shape, block.item, block.head, rows, isAligned);
  };
  const auto q = headOf(in.q, shape.queries), dy = headOf(in.dy, shape.queries);
  const auto k = headOf(in.k, shape.keys), v = headOf(in.v, shape.keys);
  const T* bias = biasOf(in.bias, shape, block.item, block.head);
  const size_t rowStart = (static_cast<size_t>(block.item) * shape.heads + block.head) * shape.queries;
  const float *lses = in.lse + rowStart, *deltas = in.delta + rowStart;
  const auto ownRow = [&](int i) { return first + warpRow + i * 8 + lane / 4; };

  // Of the queries that a thread owns; of those it meets, a stage in shared memory.
  float lse[kRows], delta[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const bool there = !kOwnKeys && ownRow(i) < shape.queries;
    lse[i] = there ? lses[ownRow(i)] * kLog2e : 0.0f;
    delta[i] = there ? deltas[ownRow(i)] : 0.0f;
  }

  const auto fetch = [&](int begin, int stage) {
    copyTile<Tile, kOther>(other + stage * Tile::kOtherSize, kOwnKeys ? q : k, begin);
    copyTile<Tile, kOther>(otherSloped + stage * Tile::kOtherSize, kOwnKeys ? dy : v, begin);
    const int at = static_cast<int>(threadIdx.x);
    if (!kOwnKeys || at >= 2 * kOther) return;
    const int query = begin + at % kOther;
    const float* from = at < kOther ? lses : deltas;
    const bool there = query < length;
    cpAsync<4>(statistics + stage * 2 * kOther + at, there ? from + query : from, there ? 4 : 0);
  };

  // Causal: queries see no later key, and keys no earlier query.
  const int start = kOwnKeys && shape.causal ? first / kOther * kOther : 0;
  const int end = !kOwnKeys && shape.causal ? min(length, first + Tile::kOwn) : length;
  Sums<Tile> byScores = {}, byValues = {};
  copyTile<Tile, Tile::kOwn>(own, kOwnKeys ? k : q, first);
  copyTile<Tile, Tile::kOwn>(ownSloped, kOwnKeys ? v : dy, first);
  fetch(start, 0);
  cpAsyncCommit();
#pragma unroll 1
  for (int begin = start, stage = 0; begin < end; begin += kOther, stage ^= 1) {
    cpAsyncWait<0>();
    __syncthreads();  // the other stage's tile has been multiplied by all
    if (begin + Tile::kOther < end) fetch(begin + Tile::kOther, stage ^ 1);
    cpAsyncCommit();

    Scores<Tile> s = {}, t = {};
    addScores<Tile>(s, own, warpRow, other + stage * Tile::kOtherSize, shape.size);
    addScores<Tile>(t, ownSloped, warpRow, otherSloped + stage * Tile::kOtherSize, shape.size);
    const float scale = shape.scale * kLog2e;
    const float* met = statistics + stage * 2 * kOther;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int n = 0; n < Tile::kTiles; ++n) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float &score = s[i / 2][n][i % 2 * 2 + e], &slope = t[i / 2][n][i % 2 * 2 + e];
          const int column = n * 8 + lane % 4 * 2 + e;
          const int query = kOwnKeys ? begin + column : ownRow(i), key = kOwnKeys ? ownRow(i) : begin + column;
          const bool visible = query < shape.queries && key < shape.keys && !(shape.causal && key > query);
          float exponent = fmaf(score, scale, kOwnKeys ? met[column] * -kLog2e : -lse[i]);
          if (bias && visible)
            exponent = fmaf(toFloat(bias[static_cast<size_t>(query) * shape.keys + key]), kLog2e, exponent);
          score = visible ? fastExp2(exponent) : 0.0f;
          slope = score * (slope - (kOwnKeys ? met[kOther + column] : delta[i]));
        }
      }
    }
    Weights<Tile> weights;
    if (kOwnKeys) {
      toWeights<T, Tile>(s, weights);
      addWeighed<Tile>(byValues, weights, otherSloped + stage * Tile::kOtherSize, shape.size);
    }
    toWeights<T, Tile>(t, weights);
    addWeighed<Tile>(byScores, weights, other + stage * Tile::kOtherSize, shape.size);
  }

  float scale[kRows], one[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    scale[i] = shape.scale;
    one[i] = 1;
  }
  writeSums<Tile>(headOf(kOwnKeys ? dk : dq, ownRows), first + warpRow, byScores, scale);
  if (kOwnKeys) writeSums<Tile>(headOf(dv, ownRows), first + warpRow, byValues, one);
}

template <bool kOwnKeys, class T, class Tile>
cudaError_t launchMma(Tile, const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dq, T* dk, T* dv,
                      cudaStream_t stream) {
  SharedLayout shared;
  for (int i = 0; i < 2; ++i) shared.take<T>(Tile::kOwnSize, 128);
  for (int i = 0; i < 2; ++i) shared.take<T>(2 * Tile::kOtherSize, 128);
  if (kOwnKeys) shared.take<float>(4 * Tile::kOther);
  const int rows = kOwnKeys ? shape.keys : shape.queries;
  const dim3 grid((rows + Tile::kOwn - 1) / Tile::kOwn * shape.heads * shape.batch);
  return launch<attentionGradMmaKernel<T, Tile, kOwnKeys>>({grid, kMmaThreads, shared.bytes(), stream}, shape, in, dq,
                                                           dk, dv,
                                                           aligned<T>(shape, in.q, in.k, in.v, in.dy, dq, dk, dv));
}

}  // namespace

template <class T>
cudaError_t attentionGradQueriesMma(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dq,
                                    cudaStream_t stream) {
  return withMmaTile<MmaTile<32, 2, 32, 2>, MmaTile<64, 2, 32, 2>, MmaTile<128, 1, 32, 2>>(
      shape.size, [&](auto tile) { return launchMma<false, T>(tile, shape, in, dq, nullptr, nullptr, stream); });
}

template <class T>
cudaError_t attentionGradKeysMma(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dk, T* dv,
                                 cudaStream_t stream) {
  return withMmaTile<MmaTile<32, 1, 64, 2>, MmaTile<64, 1, 64, 2>, MmaTile<128, 1, 32, 2>>(
      shape.size, [&](auto tile) { return launchMma<true, T>(tile, shape, in, nullptr, dk, dv, stream); });
}

#define REFL_ATTENTION_GRAD_MMA(T)                                                                       \
  template cudaError_t attentionGradQueriesMma(const AttentionShape&, const AttentionGradInputs<T>&, T*, \
                                               cudaStream_t);                                            \
  template cudaError_t attentionGradKeysMma(const AttentionShape&, const AttentionGradInputs<T>&, T*, T*, cudaStream_t);
REFL_ATTENTION_GRAD_MMA(bf16)
REFL_ATTENTION_GRAD_MMA(f16)

}  // namespace refl::cuda
