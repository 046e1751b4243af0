// What attention's tensor-core kernels share (sm_80: cp.async, ldmatrix, mma.sync), for bf16 and f16.
//
// A block of four warps owns kOwn rows of one head, a warp kM times 16 of them, and walks over kOther rows at a time of
// what they meet; the copies of the next tile are on their way while one is multiplied, one barrier a tile. A row is
// kWidth features, what a head lacks of them zeros. Chunks of 16 bytes are permuted within 128 bytes, so that copies
// and ldmatrix touch each bank once.
//
//   scores    own other^T, [kM][kTiles] accumulators of 16 x 8: both operands by plain ldmatrix
//   weighing  weights other, [kGroups][kM][4]: the weights are the scores' accumulators, rounded to T in registers,
//             the other operand comes by the transposing ldmatrix
//
// With kM = 2 a fragment of the other rows is multiplied twice. Steps of 16 features, and groups of 32 in the result,
// that a head does not reach are left out.
#pragma once
#include "attention/head.h"
#include "gemm/core_mma.h"

namespace refl::cuda::attn {

constexpr int kMmaThreads = 128, kMmaWarps = 4;

template <int Width, int M, int Other, int Blocks>
struct MmaTile {
  static constexpr int kWidth = Width, kM = M, kOther = Other;
  static constexpr int kBlocks = Blocks;                                     // on a processor, as its registers allow
  static constexpr int kOwn = kMmaWarps * M * 16;                            // rows of a block
  static constexpr int kTiles = Other / 8;                                   // of the scores, across
  static constexpr int kGroups = Width / 32;                                 // of four tiles of the result, across
  static constexpr int kOwnSize = kOwn * Width, kOtherSize = Other * Width;  // elements
};

template <class Tile>
using Scores = float[Tile::kM][Tile::kTiles][4];
template <class Tile>
using Weights = uint32_t[Tile::kTiles / 2][Tile::kM][4];
template <class Tile>
using Sums = float[Tile::kGroups][Tile::kM][4][4];

/** fn(a tile) for the size of a head. */
template <class T32, class T64, class T128, class Fn>
cudaError_t withMmaTile(int size, Fn&& fn) {
  if (size <= 32) return fn(T32());
  if (size <= 64) return fn(T64());
  return fn(T128());
}

/** Starts the copies of kCount rows from `first` on; what is not there is zero. */
template <class Tile, int kCount, class T>
__device__ __forceinline__ void copyTile(T* tile, const Head<const T>& head, int first) {
  constexpr int kChunks = Tile::kWidth / 8;
  const int rows = head.length - first;
  const T* from = head.at + static_cast<size_t>(first) * head.pitch;
  const auto each = [&](int i, auto&& copy) {
    const int at = i + static_cast<int>(threadIdx.x), row = at / kChunks, feature = at % kChunks * 8;
    const bool there = row < rows && feature < head.size;
    copy(tile + core::placeOf<Tile::kWidth>(row, feature / 8),
         there ? from + static_cast<size_t>(row) * head.pitch + feature : head.at, there ? head.size - feature : 0);
  };
  if (head.aligned) {
#pragma unroll
    for (int i = 0; i < kCount * kChunks; i += kMmaThreads)
      each(i, [](T* to, const T* at, int count) { cpAsync<16>(to, at, count > 0 ? 16 : 0); });
  } else {
#pragma unroll 1
    for (int i = 0; i < kCount * kChunks; i += kMmaThreads) {
      each(i, [](T* to, const T* at, int count) {
        Pack<T, 8> chunk;
#pragma unroll
        for (int k = 0; k < 8; ++k) chunk[k] = k < count ? at[k] : T{0};
        store(to, chunk);
      });
    }
  }
}

/** s += own other^T for a warp whose first own row is `ownRow` of the tile. */
template <class Tile, class T>
__device__ __forceinline__ void addScores(Scores<Tile>& s, const T* own, int ownRow, const T* other, int size) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 2
  for (int k = 0; k < size; k += 16) {
    uint32_t a[Tile::kM][4], b[Tile::kTiles][2];
#pragma unroll
    for (int m = 0; m < Tile::kM; ++m)
      ldmatrix(a[m], own + core::placeOf<Tile::kWidth>(ownRow + m * 16 + lane % 16, k / 8 + lane / 16));
#pragma unroll
    for (int n = 0; n < Tile::kTiles; n += 2) {
      uint32_t both[4];
      ldmatrix(both, other + core::placeOf<Tile::kWidth>(n * 8 + lane / 16 * 8 + lane % 8, k / 8 + lane / 8 % 2));
      b[n][0] = both[0], b[n][1] = both[1];
      b[n + 1][0] = both[2], b[n + 1][1] = both[3];
    }
    mmaTiles<T>(s, a, b);
  }
}

/** The scores' accumulators as the left operand of the next product: the same lanes hold the same rows. */
template <class T, class Tile>
__device__ __forceinline__ void toWeights(const Scores<Tile>& s, Weights<Tile>& weights) {
#pragma unroll
  for (int k = 0; k < Tile::kTiles / 2; ++k) {
#pragma unroll
    for (int m = 0; m < Tile::kM; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float(&from)[4] = s[m][k * 2 + i / 2];
        weights[k][m][i] = pack2<T>(from[i % 2 * 2], from[i % 2 * 2 + 1]);
      }
    }
  }
}

/** sum += weights other. */
template <class Tile, class T>
__device__ __forceinline__ void addWeighed(Sums<Tile>& sum, const Weights<Tile>& weights, const T* other, int size) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int k = 0; k < Tile::kTiles / 2; ++k) {
#pragma unroll
    for (int group = 0; group < Tile::kGroups; ++group) {
      if (group * 32 >= size) break;
      uint32_t b[4][2];
#pragma unroll
      for (int n = 0; n < 4; n += 2) {
        uint32_t both[4];
        ldmatrix<true>(both, other + core::placeOf<Tile::kWidth>(k * 16 + lane % 16, group * 4 + n + lane / 16));
        b[n][0] = both[0], b[n][1] = both[1];
        b[n + 1][0] = both[2], b[n + 1][1] = both[3];
      }
      mmaTiles<T>(sum[group], weights[k], b);
    }
  }
}

/** Writes a warp's rows, the first of them row `first` of the head, times factor[m * 2 + row / 8]. */
template <class Tile, class T>
__device__ __forceinline__ void writeSums(const Head<T>& head, int first, const Sums<Tile>& sum,
                                          const float (&factor)[Tile::kM * 2]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, t = lane % 4;
#pragma unroll
  for (int i = 0; i < Tile::kM * 2; ++i) {
    const int row = first + i * 8 + lane / 4;
#pragma unroll
    for (int group = 0; group < Tile::kGroups; ++group) {
      uint32_t v[4];
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const float(&from)[4] = sum[group][i / 2][n];
        v[n] = pack2<T>(from[i % 2 * 2] * factor[i], from[i % 2 * 2 + 1] * factor[i]);
      }
      core::transposeQuad(v);
      const int feature = group * 32 + t * 8;
      if (row >= head.length || feature >= head.size) continue;
      T* to = head.at + static_cast<size_t>(row) * head.pitch + feature;
      if (head.aligned) {
        store(reinterpret_cast<uint32_t*>(to), Pack<uint32_t, 4>{{v[0], v[1], v[2], v[3]}});
      } else {
#pragma unroll
        for (int k = 0; k < 8; ++k) {
          if (feature + k < head.size) to[k] = T{static_cast<uint16_t>(v[k / 2] >> k % 2 * 16)};
        }
      }
    }
  }
}

}  // namespace refl::cuda::attn
