// The gradient's tile, shared by its passes: the probabilities and the slopes of the scores of some own rows with some
// others, from the saved log-sum-exp.
#pragma once
#include "attention/core.h"

namespace refl::cuda::attn {

using Grad32 = Tile<32, 1, 64, 8, 32, 3>;
using Grad64 = Tile<64, 1, 64, 8, 32, 3>;
using Grad128 = Tile<128, 1, 32, 4, 32, 3>;
using Grad160 = Tile<160, 1, 32, 4, 32, 3>;
using Grad512 = Tile<128, 4, 32, 4, 32, 2>;

/** What of each query its probabilities need, for the rows or columns that a thread has. */
template <int kCount>
struct Statistics {
  float lse[kCount], delta[kCount];
  /** query(i) is the i-th of them. */
  template <class Query>
  __device__ __forceinline__ void read(const float* __restrict__ lses, const float* __restrict__ deltas, int queries,
                                       const Query& query) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const bool there = query(i) < queries;
      lse[i] = there ? lses[query(i)] * kLog2e : 0.0f;
      delta[i] = there ? deltas[query(i)] : 0.0f;
    }
  }
};

/** Turns products q k into probabilities, and dy v into the scores' slopes before the scale; zero where a key is hidden
 * or either is not there. Own rows are queries, or keys where kOwnKeys. */
template <bool kOwnKeys, class Tile, int kCount, class T>
__device__ __forceinline__ void slopes(const AttentionShape& shape, const T* bias, int first, int begin,
                                       const Statistics<kCount>& of, float (&s)[Tile::kRows][Tile::kColumns],
                                       float (&t)[Tile::kRows][Tile::kColumns]) {
  const Place<Tile> place;
  const float scale = shape.scale * kLog2e;
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kColumns; ++j) {
      const int own = first + place.row(i), other = begin + place.column(j);
      const int query = kOwnKeys ? other : own, key = kOwnKeys ? own : other, which = kOwnKeys ? j : i;
      const bool visible = query < shape.queries && key < shape.keys && !(shape.causal && key > query);
      float exponent = fmaf(s[i][j], scale, -of.lse[which]);
      if (bias && visible)
        exponent = fmaf(toFloat(bias[static_cast<size_t>(query) * shape.keys + key]), kLog2e, exponent);
      const float p = visible ? fastExp2(exponent) : 0.0f;
      s[i][j] = p;
      t[i][j] = p * (t[i][j] - of.delta[which]);
    }
  }
}

/** Writes a tile of weights for addWeighed. */
template <class Tile>
__device__ __forceinline__ void keepWeights(float* weights, const float (&s)[Tile::kRows][Tile::kColumns]) {
  const Place<Tile> place;
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
    for (int j = 0; j < Tile::kColumns; ++j) weights[place.row(i) * Tile::kWeightPitch + place.column(j)] = s[i][j];
  }
}

}  // namespace refl::cuda::attn
