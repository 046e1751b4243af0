// Attention, forward, without tensor cores: float32 products (core.h), for float and what attention_mma.cu leaves.
//
// A block of 128 threads owns 64 queries of one head (32 above 160 features) and walks over 64 or 32 keys at a time,
// keeping each query's running maximum and sum and shrinking what it has accumulated when the maximum grows. A thread
// keeps its part of the output in registers, and its part of each sum, which is added up at the end.
//
// 4 N H Lq Lk D operations, half of them where causal. Bytes: q and y once, k and v once for each block of queries,
// mostly from L2, and 4 bytes a query and head. Exponentials are to the base 2, log2(e) being part of the scale.
#include "attention/core.h"

namespace refl::cuda {
namespace {

using namespace attn;

using Forward32 = Tile<32, 1, 64, 8, 64, 3>;
using Forward64 = Tile<64, 1, 64, 8, 64, 3>;
using Forward128 = Tile<128, 1, 64, 8, 32, 2>;
using Forward160 = Tile<160, 1, 64, 8, 32, 2>;
using Forward512 = Tile<128, 4, 32, 4, 32, 2>;

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    attentionKernel(AttentionShape shape, AttentionInputs<T> in, T* __restrict__ y, float* __restrict__ lse,
                    bool isAligned) {
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns, kChunks = Tile::kChunks;
  SharedArena arena;
  float* queries = arena.take<float>(Tile::kOwn * Tile::kPitch);
  float* keys = arena.take<float>(Tile::kOther * Tile::kPitch);
  float* values = kChunks > 1 ? keys : arena.take<float>(Tile::kOther * Tile::kPitch);
  float* weights = arena.take<float>(Tile::kOwn * Tile::kWeightPitch);

  const Block block((shape.queries + Tile::kOwn - 1) / Tile::kOwn, shape.heads);
  const Place<Tile> place;
  const int first = block.tile * Tile::kOwn;
  const auto headOf = [&](auto* tensor, int length) {
    return Head<std::remove_pointer_t<decltype(tensor)>>(tensor, shape, block.item, block.head, length, isAligned);
  };
  const auto q = headOf(in.q, shape.queries), k = headOf(in.k, shape.keys), v = headOf(in.v, shape.keys);
  const T* bias = biasOf(in.bias, shape, block.item, block.head);
  const float scale = shape.scale * kLog2e;

  float out[kChunks][kRows][Tile::kFeatures] = {}, maximum[kRows], sum[kRows] = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) maximum[i] = kLowest;

  if (kChunks == 1) copyRows<Tile, Tile::kOwn>(queries, q, first, 0);
  const int end = shape.causal ? min(shape.keys, first + Tile::kOwn) : shape.keys;
#pragma unroll 1
  for (int begin = 0; begin < end; begin += Tile::kOther) {
    float s[kRows][kColumns] = {};
#pragma unroll 1
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      __syncthreads();
      if (kChunks > 1) copyRows<Tile, Tile::kOwn>(queries, q, first, chunk);
      copyRows<Tile, Tile::kOther>(keys, k, begin, chunk);
      if (kChunks == 1) copyRows<Tile, Tile::kOther>(values, v, begin, chunk);
      __syncthreads();
      addScores<Tile>(s, queries, keys, shape.size - chunk * Tile::kWidth);
    }

    float top[kRows];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const int query = first + place.row(i);
      top[i] = maximum[i];
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const int key = begin + place.column(j);
        float score = s[i][j] * scale;
        if (bias && query < shape.queries && key < shape.keys)
          score = fmaf(toFloat(bias[static_cast<size_t>(query) * shape.keys + key]), kLog2e, score);
        score = score < kLowest ? kLowest : score;  // NaN stays
        s[i][j] = key < shape.keys && !(shape.causal && key > query) ? score : -INFINITY;
        top[i] = max(top[i], s[i][j]);
      }
    }
    warpMax(top, Tile::kAcross);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float shrink = fastExp2(maximum[i] - top[i]);
      maximum[i] = top[i];
      sum[i] *= shrink;
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const float p = fastExp2(s[i][j] - top[i]);
        sum[i] += p;
        weights[place.row(i) * Tile::kWeightPitch + place.column(j)] = p;
      }
#pragma unroll
      for (int c = 0; c < kChunks; ++c) {
#pragma unroll
        for (int d = 0; d < Tile::kFeatures; ++d) out[c][i][d] *= shrink;
      }
    }
    __syncwarp();  // a row's weights are written and read by the same warp

#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      if (kChunks > 1) {
        __syncthreads();
        copyRows<Tile, Tile::kOther>(values, v, begin, chunk);
        __syncthreads();
      }
      addWeighed<Tile>(out[chunk], weights, values, end - begin);
    }
  }

  warpSum(sum, Tile::kAcross);
  float inverse[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int query = first + place.row(i);
    inverse[i] = 1.0f / sum[i];
    if (place.x == 0 && query < shape.queries)
      lse[(static_cast<size_t>(block.item) * shape.heads + block.head) * shape.queries + query] =
          (maximum[i] + log2f(sum[i])) * kLn2;
  }
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk)
    writeRows<Tile>(headOf(y, shape.queries), first, chunk, out[chunk], inverse);
}

}  // namespace

long long attentionBlocks(const AttentionShape& shape) {
  // The tiles of the gradient are the smallest: 32 rows of queries or keys, and as much of the bias.
  const auto tiles = [](long long rows) { return (rows + 31) / 32; };
  const long long heads = static_cast<long long>(shape.batch) * shape.heads;
  const long long rows = heads * (tiles(shape.queries) + tiles(shape.keys));
  return rows + tiles(shape.queries) * tiles(shape.keys) * shape.groups * shape.biasHeads;
}

template <class T>
cudaError_t attention(const AttentionShape& shape, const AttentionInputs<T>& in, T* y, float* lse,
                      cudaStream_t stream) {
  const auto run = [&](auto tile) {
    using Tile = decltype(tile);
    SharedLayout shared;
    shared.take<float>(Tile::kOwn * Tile::kPitch);
    shared.take<float>(Tile::kOther * Tile::kPitch);
    if (Tile::kChunks == 1) shared.take<float>(Tile::kOther * Tile::kPitch);
    shared.take<float>(Tile::kOwn * Tile::kWeightPitch);
    const dim3 grid((shape.queries + Tile::kOwn - 1) / Tile::kOwn * shape.heads * shape.batch);
    return launch<attentionKernel<T, Tile>>({grid, Tile::kThreads, shared.bytes(), stream}, shape, in, y, lse,
                                            aligned<T>(shape, in.q, in.k, in.v, y));
  };
  if constexpr (sizeof(T) == 2) {
    if (shape.size <= kMostMmaHeadSize) return attentionMma(shape, in, y, lse, stream);
    return shape.size <= 160 ? run(Forward160()) : run(Forward512());
  } else {
    return withTile<Forward32, Forward64, Forward128, Forward160, Forward512>(shape.size, run);
  }
}

#define REFL_ATTENTION(T) \
  template cudaError_t attention(const AttentionShape&, const AttentionInputs<T>&, T*, float*, cudaStream_t);
REFL_ATTENTION(float)
REFL_ATTENTION(bf16)
REFL_ATTENTION(f16)

}  // namespace refl::cuda
