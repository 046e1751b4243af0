// What attention's kernels without tensor cores share: tiles in shared memory, and the two kinds of product.
//
// A block owns kOwn rows of one head (queries, or keys in their gradient) and walks over kOther rows at a time of what
// they meet. Both lie in shared memory as float32, a row of kWidth features padded by 4: reads of 16 bytes from
// consecutive rows meet no bank twice. A thread, one of 16 across and kDown down, has kRows own rows, kDown apart:
//
//   scores    every 16th other row; four features a step, kRows + kOther / 16 reads of 16 bytes
//   weighing  4 (or 2) neighbouring features of every 16 * 4; four other rows a step. The weights go through shared
//             memory, within the warp; a row of them is padded by 16, so that a warp's two rows share no bank
//
// With 8 x 4 products that is 12 reads for 128 fused multiply-adds. Heads of more than 160 features go through in
// kChunks pieces of kWidth, read again from L2 for each tile.
#pragma once
#include "attention/head.h"

namespace refl::cuda::attn {

template <int Width, int Chunks, int Own, int Rows, int Other, int Blocks>
struct Tile {
  static constexpr int kWidth = Width, kChunks = Chunks, kOwn = Own, kRows = Rows, kOther = Other;
  static constexpr int kBlocks = Blocks;  // on a processor, as its registers allow
  static constexpr int kAcross = 16, kDown = Own / Rows, kThreads = kAcross * kDown;
  static constexpr int kColumns = Other / kAcross, kFeatures = Width / kAcross;  // of a thread
  static constexpr int V = Width % 64 == 0 ? 4 : 2;                              // neighbouring features of a thread
  static constexpr int kPitch = Width + 4, kWeightPitch = Other + 16;
};

/** fn(a tile) for the size of a head. */
template <class T32, class T64, class T128, class T160, class T512, class Fn>
cudaError_t withTile(int size, Fn&& fn) {
  if (size <= 32) return fn(T32());
  if (size <= 64) return fn(T64());
  if (size <= 128) return fn(T128());
  if (size <= 160) return fn(T160());
  return fn(T512());
}

/** Where a thread is in its block. */
template <class Tile>
struct Place {
  int x, y;
  __device__ __forceinline__ Place()
      : x(static_cast<int>(threadIdx.x) % Tile::kAcross), y(static_cast<int>(threadIdx.x) / Tile::kAcross) {}
  __device__ __forceinline__ int row(int i) const { return y + i * Tile::kDown; }
  __device__ __forceinline__ int column(int j) const { return x + j * Tile::kAcross; }
  __device__ __forceinline__ int feature(int i) const {
    return (i / Tile::V * Tile::kAcross + x) * Tile::V + i % Tile::V;
  }
};

/** Copies chunk `chunk` of kCount rows from `first` on; what is not there is zero. */
template <class Tile, int kCount, class T>
__device__ __forceinline__ void copyRows(float* tile, const Head<const T>& head, int first, int chunk) {
  const int rows = head.length - first, features = head.size - chunk * Tile::kWidth;
  const T* from = head.at + static_cast<size_t>(first) * head.pitch + chunk * Tile::kWidth;
  if (head.aligned) {
    constexpr int V = kPack<T>, kEach = Tile::kWidth / V;
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < kCount * kEach; i += Tile::kThreads) {
      const int row = i / kEach, feature = i % kEach * V;
      Pack<T, V> v = {};
      if (row < rows && feature < features) v = load<V>(from + static_cast<size_t>(row) * head.pitch + feature);
#pragma unroll
      for (int k = 0; k < V; k += 4)
        store(tile + row * Tile::kPitch + feature + k,
              Pack<float, 4>{{toFloat(v[k]), toFloat(v[k + 1]), toFloat(v[k + 2]), toFloat(v[k + 3])}});
    }
  } else {
#pragma unroll 2
    for (int i = static_cast<int>(threadIdx.x); i < kCount * Tile::kWidth; i += Tile::kThreads) {
      const int row = i / Tile::kWidth, feature = i % Tile::kWidth;
      const bool there = row < rows && feature < features;
      tile[row * Tile::kPitch + feature] =
          there ? toFloat(from[static_cast<size_t>(row) * head.pitch + feature]) : 0.0f;
    }
  }
}

/** s += own other^T over the features that a chunk has. */
template <class Tile>
__device__ __forceinline__ void addScores(float (&s)[Tile::kRows][Tile::kColumns], const float* own, const float* other,
                                          int features) {
  const Place<Tile> place;
#pragma unroll 1
  for (int d = 0; d < min(features, Tile::kWidth); d += 4) {
    Pack<float, 4> left[Tile::kRows];
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) left[i] = load<4>(own + place.row(i) * Tile::kPitch + d);
#pragma unroll
    for (int j = 0; j < Tile::kColumns; ++j) {
      const Pack<float, 4> right = load<4>(other + place.column(j) * Tile::kPitch + d);
#pragma unroll
      for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
        for (int k = 0; k < 4; ++k) s[i][j] = fmaf(left[i][k], right[k], s[i][j]);
      }
    }
  }
}

/** out += weights other over the first `count` of the other rows. */
template <class Tile>
__device__ __forceinline__ void addWeighed(float (&out)[Tile::kRows][Tile::kFeatures], const float* weights,
                                           const float* other, int count) {
  constexpr int V = Tile::V;
  const Place<Tile> place;
#pragma unroll 1
  for (int j = 0; j < min(count, Tile::kOther); j += 4) {
    Pack<float, 4> left[Tile::kRows];
#pragma unroll
    for (int i = 0; i < Tile::kRows; ++i) left[i] = load<4>(weights + place.row(i) * Tile::kWeightPitch + j);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int c = 0; c < Tile::kFeatures; c += V) {
        const Pack<float, V> right = load<V>(other + (j + k) * Tile::kPitch + place.feature(c));
#pragma unroll
        for (int i = 0; i < Tile::kRows; ++i) {
#pragma unroll
          for (int e = 0; e < V; ++e) out[i][c + e] = fmaf(left[i][k], right[e], out[i][c + e]);
        }
      }
    }
  }
}

/** Writes chunk `chunk` of a thread's rows, each times its factor. */
template <class Tile, class T>
__device__ __forceinline__ void writeRows(const Head<T>& head, int first, int chunk,
                                          const float (&out)[Tile::kRows][Tile::kFeatures],
                                          const float (&factor)[Tile::kRows]) {
  constexpr int V = Tile::V;
  const Place<Tile> place;
#pragma unroll
  for (int i = 0; i < Tile::kRows; ++i) {
    const int row = first + place.row(i);
    if (row >= head.length) continue;
    T* to = head.at + static_cast<size_t>(row) * head.pitch;
#pragma unroll
    for (int c = 0; c < Tile::kFeatures; c += V) {
      const int feature = chunk * Tile::kWidth + place.feature(c);
      Pack<T, V> v;
#pragma unroll
      for (int e = 0; e < V; ++e) v[e] = fromFloat<T>(out[i][c + e] * factor[i]);
      if (head.aligned && feature < head.size) store(to + feature, v);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        if (!head.aligned && feature + e < head.size) to[feature + e] = v[e];
      }
    }
  }
}

}  // namespace refl::cuda::attn
