// The tensor-core product that gemm and the convolutions share (sm_80: cp.async, ldmatrix, mma.sync), for bf16 and f16
// with float32 sums.
//
// A block of four warps, two by two, makes a tile of 128 x 128, 128 x 64 or 64 x 64 of the product. The sum runs in
// steps of 32: four stages of shared memory (64, 48 or 32 KiB), of which three are on their way while one is
// multiplied; one barrier a step. A step of the largest tile moves 16 KiB to shared memory, 2 x 32 KiB from there to
// registers, and does 2^20 operations.
//
// An operand is a matrix that exists (Matrix) or is only an address computation (the patches of a convolution): a
// Source, whose rows run along memory. Where the sum runs along rows, fragments come by plain ldmatrix, else by its
// transposing form, so all layouts cost the same. Chunks of 16 bytes are permuted within 128 bytes, so that copies and
// ldmatrix touch each bank once.
//
// Sources whose rows are not 16-byte aligned are copied in pieces of 8 or 4 bytes, or gathered in registers by plain
// loads of single elements; only the smallest tile is compiled for that.
//
// Where tiles are few, blocks divide the sum (split-K) and leave float32 partial sums, that another kernel adds in
// order.
//
// An epilogue needs its operand beside the sums, in rows of 16 bytes: the tile's sums then go through the stages'
// shared memory, which is free by that time (4 bytes each way an element). Sums that are written as they are, with
// their bias or without, change places between lanes instead.
#pragma once
#include "gemm/finish.h"

namespace refl::cuda::core {

using namespace simt;

constexpr int kThreads = 128, kDepth = 32, kStages = 4;
constexpr int kGroup = 16;  // row tiles that run side by side, so that their columns' operand stays in L2

template <int M, int N>
struct Tile {
  static constexpr int kM = M, kN = N, kWarpM = M / 2, kWarpN = N / 2;
};
using LargeTile = Tile<128, 128>;
using MiddleTile = Tile<128, 64>;
using SmallTile = Tile<64, 64>;

/** Some elements of a source's row, side by side: the first `valid` are there, the others count as zeros. */
template <class T>
struct Span {
  const T* from;
  int valid;
};

/** A row-major matrix of which `vector` elements at a multiple of `vector` may be read at once. */
template <class T>
struct Matrix {
  using Element = T;
  using Row = int;  // its first element, or -1 below the last row
  using Column = int;
  const T* data;
  int rows, columns, ld, vector;

  SIMT_DEVICE Row row(int r) const { return r < rows ? r * ld : -1; }
  SIMT_DEVICE Column column(int c) const { return c; }
  SIMT_DEVICE Span<T> span(Row row, Column column) const {
    const int valid = row < 0 ? 0 : max(min(columns - column, vector), 0);
    return {valid ? data + row + column : data, valid};
  }
};

/** The element at which a tile with rows of kColumns keeps chunk `chunk` (8 elements) of row `row`. */
template <int kColumns>
SIMT_DEVICE int placeOf(int row, int chunk) {
  constexpr int kChunks = kColumns / 8, kRows = kChunks < 8 ? 8 / kChunks : 1;  // rows in 128 bytes
  constexpr int kSwapped = kChunks < 8 ? kChunks : 8;
  return (row * kChunks + (chunk ^ (row / kRows % kSwapped))) * 8;
}

/** What a thread copies of one operand: kExtent rows (or columns) of the product by kDepth of the sum. */
template <class Source, bool kSumInner, int kExtent, bool kWide>
class Operand {
 public:
  using T = typename Source::Element;
  static constexpr int kColumns = kSumInner ? kDepth : kExtent, kRows = kSumInner ? kExtent : kDepth;
  static constexpr int kSize = kRows * kColumns;

  SIMT_DEVICE Operand(const Source& source, int first)
      : source_(source), first_(first), place_(placeOf<kColumns>(row(), chunk())) {
    if constexpr (kSumInner) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) rows_[i] = source.row(first + row() + i * kStep);
    } else if constexpr (kWide) {
      column_ = source.column(first + chunk() * 8);
    }
  }

  /** Starts the copies of the tile from `k` on in the sum. */
  SIMT_DEVICE void load(T* tile, int k) const {
    if constexpr (kSumInner) {
      const int column = k + chunk() * 8;
      if constexpr (kWide) {
        const auto at = source_.column(column);
#pragma unroll
        for (int i = 0; i < kCount; ++i) copyWide(tile + place(i), source_.span(rows_[i], at));
      } else {
        for (int i = 0; i < kCount; ++i) copyNarrow(tile + place(i), rows_[i], column);
      }
    } else {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const auto at = source_.row(k + row() + i * kStep);
        if constexpr (kWide)
          copyWide(tile + place(i), source_.span(at, column_));
        else
          copyNarrow(tile + place(i), at, first_ + chunk() * 8);
      }
    }
  }

 private:
  static constexpr int kChunks = kColumns / 8, kStep = kThreads / kChunks, kCount = kRows / kStep;

  static SIMT_DEVICE int row() { return static_cast<int>(threadIdx.x) / kChunks; }
  static SIMT_DEVICE int chunk() { return static_cast<int>(threadIdx.x) % kChunks; }
  SIMT_DEVICE int place(int i) const {
    static_assert(kStep % 8 == 0, "chunks of rows a step apart are permuted alike");
    return place_ + i * kStep * kColumns;
  }

  static SIMT_DEVICE void copyWide(T* to, const Span<T>& span) { cpAsync<16>(to, span.from, span.valid * 2); }
  /** A chunk from `column` on, in the pieces that the source allows; single elements are gathered in registers, all
   * loads before the store. */
  SIMT_DEVICE void copyNarrow(T* to, const typename Source::Row& row, int column) const {
    const auto span = [&](int i) { return source_.span(row, source_.column(column + i)); };
    switch (source_.vector) {
      case 8:
        return copyWide(to, span(0));
      case 4:
#pragma unroll
        for (int i = 0; i < 8; i += 4) cpAsync<8>(to + i, span(i).from, span(i).valid * 2);
        return;
      case 2:
#pragma unroll
        for (int i = 0; i < 8; i += 2) cpAsync<4>(to + i, span(i).from, span(i).valid * 2);
        return;
      default: {
        Pack<T, 8> chunk;
#pragma unroll
        for (int i = 0; i < 8; ++i) chunk[i] = span(i).valid ? *span(i).from : T{0};
        store(to, chunk);
      }
    }
  }

  Source source_;
  int first_, place_;
  typename Source::Row rows_[kSumInner ? kCount : 1];
  typename Source::Column column_;
};

/** Where a warp finds the kBlocks 16 x 16 fragments of an operand's tile from row (or column) `first` of the product
 * on. Each is four matrices of ldmatrix, in the order of A's registers, or of those of two neighbours of B. */
template <bool kLeft, bool kSumInner, int kExtent, int kBlocks>
class Fragments {
 public:
  SIMT_DEVICE explicit Fragments(int first) {
    constexpr bool kDown = kLeft == kSumInner;  // the second matrix lies below the first, not beside it
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const int row = kDown ? lane % 16 : lane / 16 * 8 + lane % 8, chunk = kDown ? lane / 16 : lane / 8 % 2;
#pragma unroll
    for (int i = 0; i < kPlaces; ++i)
      places_[i] =
          kSumInner ? placeOf<kDepth>(first + row, i * 2 + chunk) : placeOf<kExtent>(row, first / 8 + i * 2 + chunk);
  }
  template <class T>
  SIMT_DEVICE void load(const T* tile, int k, int block, uint32_t (&r)[4]) const {
    if constexpr (kSumInner)
      ldmatrix(r, tile + places_[k / 16] + block * 16 * kDepth);
    else
      ldmatrix<true>(r, tile + places_[block] + k * kExtent);
  }

 private:
  static constexpr int kPlaces = kSumInner ? kDepth / 16 : kBlocks;
  int places_[kPlaces];
};

/** Where a product goes: to c, with a bias for each column or null and through the epilogue, or, if it is not null, as
 * float32 to `partial`, [splits, rows, pitch]. */
template <class T>
struct Output {
  T* c;
  const T* bias;
  float* partial;
  int64_t partialSize;  // of a split
  int columns, pitch;
  bool wide;   // chunks of 8 columns of c are 16-byte aligned
  bool quads;  // 4 columns of c and of all of the epilogue's operands can be accessed at once
  Epilogue epilogue;
};

/** Lane t of each four gets what the four hold in v[t], in order. */
SIMT_DEVICE void transposeQuad(uint32_t (&v)[4]) {
  const int t = static_cast<int>(threadIdx.x) % 4;
#pragma unroll
  for (int step = 1; step < 4; step *= 2) {
    const bool upper = t & step;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (i & step) continue;
      const uint32_t got = __shfl_xor_sync(kFullWarp, upper ? v[i] : v[i + step], step);
      if (upper)
        v[i] = got;
      else
        v[i + step] = got;
    }
  }
}

/** Writes a warp's sums, whose first element is (row, column) of the product `z`. */
template <class T, class Problem, int M, int N>
SIMT_DEVICE void writeSums(const Problem& problem, const Output<T>& output, int z, int row, int column,
                           const float (&sum)[M][N][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, t = lane % 4;
  const int rows = problem.rows(z);
#pragma unroll
  for (int n = 0; n < N; n += 4) {
    float bias[8] = {};
    if (output.bias) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int at = column + (n + i / 2) * 8 + t * 2 + i % 2;
        if (at < output.columns) bias[i] = toFloat(output.bias[at]);
      }
    }
    const int first = column + n * 8 + t * 8;
#pragma unroll
    for (int i = 0; i < M * 2; ++i) {
      const int at = row + i * 8 + lane / 4;
      const float(&part)[N][4] = sum[i / 2];
      uint32_t v[4];
#pragma unroll
      for (int j = 0; j < 4; ++j)
        v[j] = pack2<T>(part[n + j][i % 2 * 2] + bias[j * 2], part[n + j][i % 2 * 2 + 1] + bias[j * 2 + 1]);
      transposeQuad(v);
      if (at >= rows) continue;
      T* to = output.c + problem.elementOf(z, at) + first;
      if (output.wide && first + 8 <= output.columns) {
        store(reinterpret_cast<uint32_t*>(to), Pack<uint32_t, 4>{{v[0], v[1], v[2], v[3]}});
      } else {
#pragma unroll
        for (int j = 0; j < 8; ++j)
          if (first + j < output.columns) to[j] = T{static_cast<uint16_t>(v[j / 2] >> j % 2 * 16)};
      }
    }
  }
}

template <class T, class Problem, int M, int N>
SIMT_DEVICE void writePartial(const Problem& problem, const Output<T>& output, float* partial, int z, int row,
                              int column, const float (&sum)[M][N][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, rows = problem.rows(z);
#pragma unroll
  for (int i = 0; i < M * 2; ++i) {
    const int at = row + i * 8 + lane / 4;
    if (at >= rows) continue;
    float* to = partial + problem.rowOf(z, at) * output.pitch;
#pragma unroll
    for (int n = 0; n < N; ++n) {
      const int first = column + n * 8 + lane % 4 * 2;
      if (first < output.pitch)
        store(to + first, Pack<float, 2>{{sum[i / 2][n][i % 2 * 2], sum[i / 2][n][i % 2 * 2 + 1]}});
    }
  }
}

/** Leaves a warp's sums, whose first element is (0, column) of a tile of kColumns. */
template <int kColumns, int M, int N>
SIMT_DEVICE void stageSums(float* tile, int column, const float (&sum)[M][N][4]) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll
  for (int i = 0; i < M * 2; ++i) {
#pragma unroll
    for (int n = 0; n < N; ++n)
      store(tile + placeOfSum<kColumns>(i * 8 + lane / 4, column + n * 8 + lane % 4 * 2),
            Pack<float, 2>{{sum[i / 2][n][i % 2 * 2], sum[i / 2][n][i % 2 * 2 + 1]}});
  }
}

/** How blocks divide the work: each takes one tile of one product and one part of its sum. */
struct Grid {
  int tilesM, tilesN, splits;
};

// A Problem has: Element; kSumInnerA, kSumInnerB; kOnlyPartial, where it is never written to c directly; for each
// product z: a(z), b(z): Sources, b's rows or columns being the product's columns; rows(z) and depth(z); rowOf(z, row),
// the row counted over all products, and elementOf(z, row), its first element in c.
template <class Tile, bool kWide, class Problem>
__global__ void __launch_bounds__(kThreads, 2)
    mmaKernel(const __grid_constant__ Problem problem, const __grid_constant__ Grid grid,
              const __grid_constant__ Output<typename Problem::Element> output) {
  using T = typename Problem::Element;
  const int tiles = grid.tilesM * grid.tilesN, tile = static_cast<int>(blockIdx.x) % tiles,
            part = static_cast<int>(blockIdx.x) / tiles, split = part % grid.splits, z = part / grid.splits;
  const int firstM = tile / (kGroup * grid.tilesN) * kGroup, inGroup = tile % (kGroup * grid.tilesN),
            groupM = min(grid.tilesM - firstM, kGroup);
  const int row = (firstM + inGroup % groupM) * Tile::kM, column = inGroup / groupM * Tile::kN;
  if (row >= problem.rows(z)) return;

  using SourceA = decltype(problem.a(0));
  using SourceB = decltype(problem.b(0));
  using OperandA = Operand<SourceA, Problem::kSumInnerA, Tile::kM, kWide>;
  using OperandB = Operand<SourceB, Problem::kSumInnerB, Tile::kN, kWide>;
  SharedArena arena;
  T* tilesA = arena.take<T>(kStages * OperandA::kSize, 128);
  T* tilesB = arena.take<T>(kStages * OperandB::kSize, 128);
  const OperandA a(problem.a(z), row);
  const OperandB b(problem.b(z), column);

  const int all = (problem.depth(z) + kDepth - 1) / kDepth, each = (all + grid.splits - 1) / grid.splits;
  const int begin = split * each, steps = min(all - begin, each);
  const auto fetch = [&](int next) {
    if (next < steps) {
      a.load(tilesA + next % kStages * OperandA::kSize, (begin + next) * kDepth);
      b.load(tilesB + next % kStages * OperandB::kSize, (begin + next) * kDepth);
    }
    cpAsyncCommit();
  };
#pragma unroll
  for (int step = 0; step < kStages - 1; ++step) fetch(step);

  constexpr int kTilesM = Tile::kWarpM / 16, kTilesN = Tile::kWarpN / 8;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int warpRow = warp / 2 * Tile::kWarpM, warpColumn = warp % 2 * Tile::kWarpN;
  const Fragments<true, Problem::kSumInnerA, Tile::kM, kTilesM> left(warpRow);
  const Fragments<false, Problem::kSumInnerB, Tile::kN, kTilesN / 2> right(warpColumn);
  float sum[kTilesM][kTilesN][4] = {};
  for (int step = 0; step < steps; ++step) {
    cpAsyncWait<kStages - 2>();
    // After the barrier all have multiplied the step before, whose stage the next copies overwrite.
    __syncthreads();
    fetch(step + kStages - 1);
    const T* tileA = tilesA + step % kStages * OperandA::kSize;
    const T* tileB = tilesB + step % kStages * OperandB::kSize;
#pragma unroll
    for (int k = 0; k < kDepth; k += 16) {
      uint32_t fragmentsA[kTilesM][4], fragmentsB[kTilesN][2];
#pragma unroll
      for (int m = 0; m < kTilesM; ++m) left.load(tileA, k, m, fragmentsA[m]);
#pragma unroll
      for (int n = 0; n < kTilesN; n += 2) {
        uint32_t both[4];
        right.load(tileB, k, n / 2, both);
        fragmentsB[n][0] = both[0], fragmentsB[n][1] = both[1];
        fragmentsB[n + 1][0] = both[2], fragmentsB[n + 1][1] = both[3];
      }
      mmaTiles<T>(sum, fragmentsA, fragmentsB);
    }
  }

  const int warpM = row + warpRow, warpN = column + warpColumn;
  if constexpr (!Problem::kOnlyPartial) {
    if (!output.partial) {
      if (!output.epilogue.any()) return writeSums(problem, output, z, warpM, warpN, sum);
      // The two warps beside each other share half of the stages.
      static_assert(Tile::kWarpM * Tile::kN * sizeof(float) <= kStages * OperandB::kSize * sizeof(T) &&
                    OperandB::kSize <= OperandA::kSize);
      float* staged = reinterpret_cast<float*>(warp / 2 ? tilesB : tilesA);
      __syncthreads();
      stageSums<Tile::kN>(staged, warpColumn, sum);
      __syncthreads();
      finishTile<T, Tile::kWarpM, Tile::kN, kThreads / 2>(
          output.epilogue, staged, static_cast<int>(threadIdx.x) % (kThreads / 2), output.bias, column, output.columns,
          output.quads,
          [&](int i) { return warpM + i < problem.rows(z) ? static_cast<int>(problem.rowOf(z, warpM + i)) : -1; },
          [&](int i, int at, const float(&v)[4]) {
            writeFinished(output.epilogue, output.c, problem.elementOf(z, warpM + i), at, output.columns, output.quads,
                          v);
          });
      return;
    }
  }
  writePartial(problem, output, output.partial + split * output.partialSize, z, warpM, warpN, sum);
}

}  // namespace refl::cuda::core
