// The gradient of attention by its bias: the scores' slopes, summed over the batch elements and heads that share an
// entry of it.
//
// A block of 128 threads owns 64 queries (32 above 64 features) and 32 keys of one matrix of the bias. For each batch
// element and head that uses it, in order, it recomputes the slopes (core_grad.h) and adds them up in registers, in
// float32: 4 N H Lq Lk D operations, no scratch, one write. All of q, k, v and dy is read once for each block of the
// other, mostly from L2.
#include "attention/core_grad.h"

namespace refl::cuda {
namespace {

using namespace attn;

template <class T, class Tile>
__global__ void __launch_bounds__(Tile::kThreads, Tile::kBlocks)
    attentionGradBiasKernel(AttentionShape shape, AttentionGradInputs<T> in, T* __restrict__ dbias, bool isAligned) {
  constexpr int kRows = Tile::kRows, kColumns = Tile::kColumns;
  SharedArena arena;
  float* queries = arena.take<float>(Tile::kOwn * Tile::kPitch);
  float* keys = arena.take<float>(Tile::kOther * Tile::kPitch);
  float* slopesOfY = arena.take<float>(Tile::kOwn * Tile::kPitch);
  float* values = arena.take<float>(Tile::kOther * Tile::kPitch);

  const int across = (shape.keys + Tile::kOther - 1) / Tile::kOther;
  const int down = (shape.queries + Tile::kOwn - 1) / Tile::kOwn;
  const Block block(across * down, shape.biasHeads);
  const Place<Tile> place;
  const int first = block.tile / across * Tile::kOwn, begin = block.tile % across * Tile::kOther;

  float sum[kRows][kColumns] = {};
  const int lastHead = shape.biasHeads == 1 ? shape.heads : block.head + 1;
#pragma unroll 1
  for (int item = block.item; item < shape.batch; item += shape.groups) {
#pragma unroll 1
    for (int head = block.head; head < lastHead; ++head) {
      const auto headOf = [&](const T* tensor, int length) {
        return Head<const T>(tensor, shape, item, head, length, isAligned);
      };
      float s[kRows][kColumns] = {}, t[kRows][kColumns] = {};
#pragma unroll 1
      for (int chunk = 0; chunk < Tile::kChunks; ++chunk) {
        __syncthreads();
        copyRows<Tile, Tile::kOwn>(queries, headOf(in.q, shape.queries), first, chunk);
        copyRows<Tile, Tile::kOther>(keys, headOf(in.k, shape.keys), begin, chunk);
        copyRows<Tile, Tile::kOwn>(slopesOfY, headOf(in.dy, shape.queries), first, chunk);
        copyRows<Tile, Tile::kOther>(values, headOf(in.v, shape.keys), begin, chunk);
        __syncthreads();
        addScores<Tile>(s, queries, keys, shape.size - chunk * Tile::kWidth);
        addScores<Tile>(t, slopesOfY, values, shape.size - chunk * Tile::kWidth);
      }
      const size_t rowStart = (static_cast<size_t>(item) * shape.heads + head) * shape.queries;
      Statistics<kRows> statistics;
      statistics.read(in.lse + rowStart, in.delta + rowStart, shape.queries,
                      [&](int i) { return first + place.row(i); });
      slopes<false, Tile>(shape, biasOf(in.bias, shape, item, head), first, begin, statistics, s, t);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int j = 0; j < kColumns; ++j) sum[i][j] += t[i][j];
      }
    }
  }

  T* to = biasOf(dbias, shape, block.item, block.head);
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) {
      const int query = first + place.row(i), key = begin + place.column(j);
      if (query < shape.queries && key < shape.keys)
        to[static_cast<size_t>(query) * shape.keys + key] = fromFloat<T>(sum[i][j]);
    }
  }
}

}  // namespace

template <class T>
cudaError_t attentionGradBias(const AttentionShape& shape, const AttentionGradInputs<T>& in, T* dbias,
                              cudaStream_t stream) {
  return withTile<Grad32, Grad64, Grad128, Grad160, Grad512>(shape.size, [&](auto tile) {
    using Tile = decltype(tile);
    SharedLayout shared;
    for (int i = 0; i < 2; ++i)
      shared.take<float>(Tile::kOwn * Tile::kPitch).template take<float>(Tile::kOther * Tile::kPitch);
    const dim3 grid((shape.keys + Tile::kOther - 1) / Tile::kOther * ((shape.queries + Tile::kOwn - 1) / Tile::kOwn) *
                    shape.biasHeads * shape.groups);
    return launch<attentionGradBiasKernel<T, Tile>>({grid, Tile::kThreads, shared.bytes(), stream}, shape, in, dbias,
                                                    aligned<T>(shape, in.q, in.k, in.v, in.dy));
  });
}

#define REFL_ATTENTION_GRAD_BIAS(T) \
  template cudaError_t attentionGradBias(const AttentionShape&, const AttentionGradInputs<T>&, T*, cudaStream_t);
REFL_ATTENTION_GRAD_BIAS(float)
REFL_ATTENTION_GRAD_BIAS(bf16)
REFL_ATTENTION_GRAD_BIAS(f16)

}  // namespace refl::cuda
