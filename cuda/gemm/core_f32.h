// Products of float32: the main loop that the matrix products and convolutions share, and its true form, without tensor
// cores; core_tf32.h has the other.
//
// Tiling. A block makes a tile of kM x kN elements of the result; a thread kTM x kTN of them in registers, its warp a
// patch of 4 x 8 threads where the tile allows. The depth is walked kDepth at a time: both operands' slices are copied
// to shared memory by cp.async, 16 bytes a copy where the memory's alignment allows and 4 otherwise, into one of two
// buffers while the other is multiplied; one barrier a step.
//
// An operand lies in memory with its depth innermost (kRows: a row of the tile is contiguous along the depth) or
// outermost (kColumns: so are the tile's columns at one depth), and in shared memory as in memory, so no copy is
// turned round. Rows are padded to 20 floats: 16-byte reads of consecutive rows meet no bank twice; columns by 8, for
// core_tf32.h. Four depths at a time, a thread reads its kTM x 4 of the left operand into registers and runs the right
// one's vectors past them: for 8 x 8 elements 16 reads of 16 bytes and 256 fused multiply-adds.
//
// Sums. Each element is one chain of fmaf in the order of the depth, of at most kLongest products, so that its error
// stays some 1e-6 of the sum even where all products have one sign. A longer depth is split among blocks, as is one
// whose tiles are few; the blocks' partial sums are added in their order by a second launch.
//
// Sums that an epilogue follows go through shared memory, so that one loop finishes them, not every register's copy of
// the steps.
//
// Bytes moved: (kM + kN) * 4 for each kM * kN multiply-adds, mostly from L2; the result once, or 8 bytes for each
// partial sum of it.
#pragma once
#include <algorithm>

#include "gemm/finish.h"

namespace refl::cuda::f32 {

using namespace simt;

constexpr int kDepth = 16, kPitch = kDepth + 4;
constexpr int kLongest = 4096;

enum class Layout { kRows, kColumns };

template <int M, int N, int TM, int TN>
struct Tile {
  static constexpr int kM = M, kN = N, kTM = TM, kTN = TN;
  static constexpr int kY = M / TM, kX = N / TN, kThreads = kX * kY;
  static constexpr int kBlocks = 384 / kThreads;  // on a processor: a thread has 168 registers
  static constexpr int kWarpX = kY < 4 ? 32 / kY : kX < 8 ? kX : 8, kWarpY = 32 / kWarpX;
};
using Large = Tile<128, 64, 8, 8>;
using Small = Tile<64, 64, 8, 4>;
using Tall = Tile<256, 8, 2, 8>;  // few columns
using Wide = Tile<8, 256, 8, 2>;  // few rows

/** n / divisor without a division, for 0 <= n < 2^31. */
struct Divisor {
  uint32_t divisor, multiplier, shift = 0;
  explicit Divisor(int by) : divisor(static_cast<uint32_t>(by)) {
    while ((uint64_t{1} << shift) < divisor) ++shift;
    multiplier = static_cast<uint32_t>((((uint64_t{1} << shift) - divisor) << 32) / divisor + 1);
  }
  __device__ __forceinline__ int quotient(int n) const {
    const auto u = static_cast<uint32_t>(n);
    return static_cast<int>((__umulhi(u, multiplier) + u) >> shift);
  }
  __device__ __forceinline__ int remainder(int n, int quotient) const {
    return n - quotient * static_cast<int>(divisor);
  }
};

/** Where an operand's copy comes from, and whether it is there; if not, zeros are copied. */
struct From {
  const float* at;
  bool present;
};

/** Floats from one depth to the next of kLines columns. */
template <int kLines>
constexpr int kColumnPitch = kLines + 8;
template <Layout kLayout, int kLines>
constexpr int kFloats = kLayout == Layout::kRows ? kLines* kPitch : kColumnPitch<kLines>* kDepth;

/** Issues the copies of depths [k, k + kDepth) of kLines rows; from `end` on there are zeros. source.depth(k)(row) is a
 * From; `wide`: four depths from any multiple of 4 lie together, at a multiple of 16 bytes. */
template <int kLines, int kThreads, int V, class Source>
__device__ __forceinline__ void copyRows(float* tile, int k, int end, const Source& source) {
  constexpr int kAcross = kDepth / V, kDown = kThreads / kAcross;
  const int across = static_cast<int>(threadIdx.x) % kAcross * V, down = static_cast<int>(threadIdx.x) / kAcross;
  const int count = max(0, min(end - (k + across), V));
  // Beyond the end no place is looked up.
  const auto at = source.depth(count > 0 ? k + across : 0);
#pragma unroll 1
  for (int row = 0; row < kLines; row += kDown) {
    if (kLines % kDown != 0 && row + down >= kLines) break;
    const From from = at(row + down);
    cpAsync<V * 4>(tile + (row + down) * kPitch + across, from.at, from.present ? count * 4 : 0);
  }
}

/** The same of kLines columns, of which the first `lines` are there; source.column(j)(k) is a From. */
template <int kLines, int kThreads, int V, class Source>
__device__ __forceinline__ void copyColumns(float* tile, int k, int end, int lines, const Source& source) {
  constexpr int kAcross = kLines / V, kStep = kAcross < kThreads ? kAcross : kThreads, kDown = kThreads / kStep;
  const int down = static_cast<int>(threadIdx.x) / kStep;
#pragma unroll 1
  for (int piece = 0; piece < kAcross; piece += kStep) {
    const int column = (piece + static_cast<int>(threadIdx.x) % kStep) * V;
    const int count = max(0, min(lines - column, V));
    const auto at = source.column(count > 0 ? column : 0);
#pragma unroll 1
    for (int depth = 0; depth < kDepth; depth += kDown) {
      if (kDepth % kDown != 0 && depth + down >= kDepth) break;
      const bool inside = k + depth + down < end;
      const From from = at(inside ? k + depth + down : k);
      cpAsync<V * 4>(tile + (depth + down) * kColumnPitch<kLines> + column, from.at,
                     inside && from.present ? count * 4 : 0);
    }
  }
}

/** The lines of a tile that thread `t` of kAlong has, and its part of them at depths [k, k + 4) or at depth k. */
template <Layout kLayout, int kLines, int kEach>
struct Fragment {
  static constexpr int kAlong = kLines / kEach;
  static constexpr int V = kLayout == Layout::kRows ? 1 : kEach % 4 == 0 ? 4 : 2;  // lines side by side
  static __device__ __forceinline__ int line(int t, int i) { return (i / V * kAlong + t) * V + i % V; }
  static __device__ __forceinline__ void four(const float* tile, int t, int k, float (&to)[4][kEach]) {
    if constexpr (kLayout == Layout::kRows) {
#pragma unroll
      for (int i = 0; i < kEach; ++i) {
        const Pack<float, 4> v = load<4>(tile + line(t, i) * kPitch + k);
#pragma unroll
        for (int d = 0; d < 4; ++d) to[d][i] = v[d];
      }
    } else {
#pragma unroll
      for (int d = 0; d < 4; ++d) one(tile, t, k + d, to[d]);
    }
  }
  static __device__ __forceinline__ void one(const float* tile, int t, int k, float (&to)[kEach]) {
#pragma unroll
    for (int i = 0; i < kEach; i += V) {
      const Pack<float, V> v = load<V>(tile + k * kColumnPitch<kLines> + line(t, i));
#pragma unroll
      for (int j = 0; j < V; ++j) to[i + j] = v[j];
    }
  }
};

/** Where a thread is in its block's tile. */
template <class T>
struct Place {
  int y, x;
  __device__ __forceinline__ Place() {
    constexpr int kWarps = T::kX / T::kWarpX;
    const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
    y = warp / kWarps * T::kWarpY + lane / T::kWarpX;
    x = warp % kWarps * T::kWarpX + lane % T::kWarpX;
  }
};

/** A thread's part of a tile, kRows x kParts vectors of V, and how a step of the depth is added to it. */
template <class T, Layout kA, Layout kB>
class Exact {
  using Left = Fragment<kA, T::kM, T::kTM>;
  using Right = Fragment<kB, T::kN, T::kTN>;

 public:
  static constexpr int V = Right::V, kRows = T::kTM, kParts = T::kTN / V;

  __device__ __forceinline__ int row(int i) const { return Left::line(place_.y, i); }
  __device__ __forceinline__ int column(int part) const { return Right::line(place_.x, part * V); }
  __device__ __forceinline__ Pack<float, V> part(int i, int part) const {
    Pack<float, V> v;
#pragma unroll
    for (int e = 0; e < V; ++e) v[e] = sums_[i][part * V + e];
    return v;
  }

  __device__ __forceinline__ void add(const float* left, const float* right) {
#pragma unroll 1
    for (int k = 0; k < kDepth; k += 4) {
      if constexpr (kB == Layout::kRows) {
        float a[4][T::kTM];
        Left::four(left, place_.y, k, a);
#pragma unroll
        for (int j = 0; j < T::kTN; ++j) {
          const Pack<float, 4> b = load<4>(right + Right::line(place_.x, j) * kPitch + k);
#pragma unroll
          for (int d = 0; d < 4; ++d) {
#pragma unroll
            for (int i = 0; i < T::kTM; ++i) sums_[i][j] = fmaf(a[d][i], b[d], sums_[i][j]);
          }
        }
      } else if constexpr (kA == Layout::kRows) {
        float b[4][T::kTN];
        Right::four(right, place_.x, k, b);
#pragma unroll
        for (int i = 0; i < T::kTM; ++i) {
          const Pack<float, 4> a = load<4>(left + Left::line(place_.y, i) * kPitch + k);
#pragma unroll
          for (int d = 0; d < 4; ++d) {
#pragma unroll
            for (int j = 0; j < T::kTN; ++j) sums_[i][j] = fmaf(a[d], b[d][j], sums_[i][j]);
          }
        }
      } else {
#pragma unroll
        for (int d = 0; d < 4; ++d) {
          float a[T::kTM], b[T::kTN];
          Left::one(left, place_.y, k + d, a);
          Right::one(right, place_.x, k + d, b);
#pragma unroll
          for (int i = 0; i < T::kTM; ++i) {
#pragma unroll
            for (int j = 0; j < T::kTN; ++j) sums_[i][j] = fmaf(a[i], b[j], sums_[i][j]);
          }
        }
      }
    }
  }

 private:
  Place<T> place_;
  float sums_[T::kTM][T::kTN] = {};
};

/** A row of the output: where it begins, or null, and its number, counted over a batch. */
struct Row {
  float* at;
  int number;
};

/** Where a tile goes: its first column in the output, how many columns that has, its bias and epilogue. */
struct Target {
  int column, columns;
  bool aligned;  // rows and columns lie at multiples of 16 bytes
  bool quads;    // as do those of all operands
  const float* bias;
  const Epilogue* epilogue;
};

/**
 * Multiplies depths [first, last) (in steps) of a tile. copy(a, b, k) issues the copies of the depths from k on; row(i)
 * is the tile's Row i. `Product` is Exact, or Rounded of core_tf32.h; without kFinishes there is no epilogue.
 */
template <template <class, Layout, Layout> class Product, class T, Layout kA, Layout kB, bool kFinishes, class Copy,
          class RowOf>
__device__ __forceinline__ void multiply(int first, int last, const Target& target, const Copy& copy,
                                         const RowOf& row) {
  constexpr int kLeft = kFloats<kA, T::kM>, kRight = kFloats<kB, T::kN>, kBoth = kLeft + kRight;
  constexpr int kStaged = kFinishes ? T::kM * T::kN / 2 : 0, kHalf = kBoth < kStaged ? kStaged : kBoth;
  SIMT_SHARED(float, tiles, [2][kHalf]);
  Product<T, kA, kB> product;

  if (first < last) copy(tiles[0], tiles[0] + kLeft, first * kDepth);
  cpAsyncCommit();
  for (int step = first; step < last; ++step) {
    cpAsyncWait<0>();
    __syncthreads();
    float* now = tiles[(step - first) % 2];
    float* next = tiles[(step - first + 1) % 2];
    if (step + 1 < last) copy(next, next + kLeft, (step + 1) * kDepth);
    cpAsyncCommit();
    product.add(now, now + kLeft);
  }

  constexpr int V = product.V;
  const int columns = target.columns;
  if constexpr (kFinishes) {
    if (target.epilogue->steps > 0) {
      float* staged = tiles[0];
      __syncthreads();
#pragma unroll
      for (int i = 0; i < product.kRows; ++i) {
#pragma unroll
        for (int j = 0; j < product.kParts; ++j)
          store(staged + placeOfSum<T::kN>(product.row(i), product.column(j)), product.part(i, j));
      }
      __syncthreads();
      finishTile<float, T::kM, T::kN, T::kThreads>(
          *target.epilogue, staged, static_cast<int>(threadIdx.x), target.bias, target.column, columns, target.quads,
          [&](int i) { return row(i).number; },
          [&](int i, int column, const float(&v)[4]) { writePart(row(i).at, column, columns, target.quads, v); });
      return;
    }
  }
#pragma unroll
  for (int i = 0; i < product.kRows; ++i) {
    float* to = row(product.row(i)).at;
    if (to == nullptr) continue;
#pragma unroll
    for (int j = 0; j < product.kParts; ++j) {
      const int column = target.column + product.column(j);
      Pack<float, V> v = product.part(i, j);
      if (target.bias != nullptr) {
#pragma unroll
        for (int e = 0; e < V; ++e) {
          if (column + e < columns) v[e] += target.bias[column + e];
        }
      }
      if (V > 1 && target.aligned && column + V <= columns) {
        store(to + column, v);
        continue;
      }
#pragma unroll
      for (int e = 0; e < V; ++e) {
        if (column + e < columns) to[column + e] = v[e];
      }
    }
  }
}

/** Adds `splits` results of rows x columns, one after the other in memory, in their order, and the bias, and takes them
 * through the epilogue. A row of the output begins `stride` floats after the last, and every `group` rows `groupStride`
 * floats after the last such. */
struct Partials {
  const float *partial, *bias;
  float* to;
  int splits;
  int64_t count;  // elements of one result
  int columns, group, stride;
  int64_t groupStride;
  Epilogue epilogue = {};
};

template <int V>
__global__ void __launch_bounds__(256) sumPartialsKernel(const __grid_constant__ Partials p) {
  const int64_t i = (static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x) * V;
  if (i >= p.count) return;
  Pack<float, V> sum = load<V>(p.partial + i);
  for (int s = 1; s < p.splits; ++s) {
    const Pack<float, V> v = load<V>(p.partial + s * p.count + i);
#pragma unroll
    for (int e = 0; e < V; ++e) sum[e] += v[e];
  }
  const int64_t row = i / p.columns;
  const int column = static_cast<int>(i - row * p.columns), place[1] = {static_cast<int>(row)};
  float v[1][V];
#pragma unroll
  for (int e = 0; e < V; ++e) v[0][e] = p.bias != nullptr ? sum[e] + p.bias[column + e] : sum[e];
  finish<float>(p.epilogue, place, column, p.columns, true, v);
  writePart(p.to + row / p.group * p.groupStride + row % p.group * p.stride, column, p.columns, true, v[0]);
}

inline bool aligned16(const void* at) { return reinterpret_cast<size_t>(at) % 16 == 0; }

inline cudaError_t sumPartials(const Partials& p, cudaStream_t stream) {
  const auto blocks = [&](int v) { return dim3(static_cast<unsigned>((p.count / v + 255) / 256)); };
  if (quadsFit(p.epilogue, p.to, p.columns, p.stride | p.groupStride))
    return launch<sumPartialsKernel<4>>({blocks(4), 256, 0, stream}, p);
  return launch<sumPartialsKernel<1>>({blocks(1), 256, 0, stream}, p);
}

/** Which tile, and among how many blocks the depth is split. */
struct Plan {
  enum Kind { kLarge, kSmall, kTall, kWide } tile = kLarge;
  int splits = 1;
};

/** The plan with the least modelled time, from the shape and `tf32`, which has no tile of 8 rows. Its unit is a
 * multiply-add of one of 132 processors: a tile costs its whole area over the share of the peak that its reads of
 * shared memory leave it; a partial sum is written and read, at 8 bytes and the time of some 50 multiply-adds; a second
 * launch costs 2 microseconds. Tiles of 8 lines copy most for what they multiply: they are for results of at most 16.
 */
inline Plan planOf(int64_t batch, int64_t rows, int64_t columns, int64_t depth, bool tf32) {
  constexpr struct {
    Plan::Kind tile;
    int m, n;
    double share;
  } kinds[] = {{Plan::kLarge, Large::kM, Large::kN, 0.85},
               {Plan::kSmall, Small::kM, Small::kN, 0.65},
               {Plan::kTall, Tall::kM, Tall::kN, 0.5},
               {Plan::kWide, Wide::kM, Wide::kN, 0.5}};
  constexpr int kProcessors = 132, kLeastSteps = 8, kMostBlocks = 3 * kProcessors;
  constexpr double kPartial = 50.0 / kProcessors, kLaunch = 4e5;
  const int64_t steps = std::max<int64_t>(1, (depth + kDepth - 1) / kDepth);
  Plan best;
  double least = -1;
  for (const auto& kind : kinds) {
    if ((kind.tile == Plan::kTall && columns > 16) || (kind.tile == Plan::kWide && (rows > 16 || tf32))) continue;
    const int64_t tiles = batch * ((rows + kind.m - 1) / kind.m) * ((columns + kind.n - 1) / kind.n);
    const int64_t fewest = (steps * kDepth + kLongest - 1) / kLongest;
    for (int64_t splits = fewest; splits == fewest || steps / splits >= kLeastSteps; ++splits) {
      const int64_t waves = (tiles * splits + kProcessors - 1) / kProcessors, each = (steps + splits - 1) / splits;
      double cost = static_cast<double>(waves * kind.m * kind.n * each * kDepth) / kind.share;
      if (splits > 1) cost += static_cast<double>(splits * batch * rows * columns) * kPartial + kLaunch;
      if (least < 0 || cost < least) {
        least = cost;
        best = {kind.tile, static_cast<int>(splits)};
      }
      if (tiles * splits >= kMostBlocks) break;
    }
  }
  return best;
}

/** fn(tile) with the plan's tile. */
template <class Fn>
cudaError_t withTile(Plan::Kind tile, Fn&& fn) {
  if (tile == Plan::kLarge) return fn(Large());
  if (tile == Plan::kTall) return fn(Tall());
  if (tile == Plan::kWide) return fn(Wide());
  return fn(Small());
}

}  // namespace refl::cuda::f32
