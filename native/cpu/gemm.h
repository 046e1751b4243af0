#pragma once
// The matrix product under linear layers, convolutions and attention: C = A B + init, row-major, in float or double.
//
// One register tile of kTileRows x 2 vectors of C is held while A (broadcast, row by row) and B (a packed panel, two
// vectors a step) stream by: 24 multiply-adds for 14 loads. A region of C is computed by one thread in blocks that keep
// a kBlockDepth x kBlockColumns piece of B and a kBlockRows x kBlockDepth piece of A in the second-level cache.
// Operands come through callables, so that transposes, image patches and strided gradients need no copy in memory. Sums
// run over the depth in order, whatever the partitioning, and accumulate in T.
#include <array>
#include <cstring>
#include <utility>

#include "cpu/simd.h"
#include "cpu/support.h"

namespace refl::REFL_ISA {

#if defined(__AVX512F__)
constexpr int64_t kTileRows = 12;  // of the 32 registers 24 hold C
#else
constexpr int64_t kTileRows = 6;  // of the 16 registers 12 hold C
#endif
template <class T>
constexpr int64_t kPanel = 2 * kLanes<T>;  // columns of a packed panel of B

constexpr int64_t kBlockRows = 96, kBlockDepth = 384, kBlockColumns = 384;
constexpr int64_t kPackedColumns = 768;  // of a B packed as a whole, which needs no copy: the wider, the rarer A's
// Products are summed in chains of this many before they join C: rounding errors of float32 then stay near those of a
// chain (a third of one long sum's at a depth of 1728), for one addition to C in 128 multiply-adds.
constexpr int64_t kChain = 128;
constexpr int64_t kRowGap = 16;  // added to rows of copies, so that equally spaced rows do not share cache sets

constexpr int64_t ceilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }
constexpr int64_t roundUp(int64_t a, int64_t b) { return ceilDiv(a, b) * b; }

// R x V vectors of C: rows a, a + lda, ... of `depth` elements times a panel of V vectors a step, plus rows of `init`
// (none where null; ldi 0 repeats one row).
template <class T, int R, int V>
void tile(int64_t depth, const T* a, int64_t lda, const T* b, const T* init, int64_t ldi, T* c, int64_t ldc) {
  constexpr int64_t W = kLanes<T>;
  // Three rows a pointer: base, base + lda and base + 2 lda are one addressing mode each, so no register is spilled.
  const T* base[(R + 2) / 3];
#pragma GCC unroll 4
  for (int i = 0; i < (R + 2) / 3; i++) base[i] = a + 3 * i * lda;
  for (int64_t from = 0; from < depth || from == 0; from += kChain) {
    const int64_t to = std::min(depth, from + kChain);
    Vector<T> sum[R][V] = {};
    for (int64_t k = from; k < to; k++, b += V * W) {
      Vector<T> w[V];
#pragma GCC unroll 2
      for (int j = 0; j < V; j++) w[j] = load(b + j * W);
#pragma GCC unroll 16
      for (int i = 0; i < R; i++) {
        const T x = base[i / 3][(i % 3) * lda + k];
#pragma GCC unroll 2
        for (int j = 0; j < V; j++) sum[i][j] += x * w[j];
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < R; i++) {
#pragma GCC unroll 2
      for (int j = 0; j < V; j++) {
        store(c + i * ldc + j * W, init ? load(init + i * ldi + j * W) + sum[i][j] : sum[i][j]);
      }
    }
    init = c;
    ldi = ldc;
  }
}

template <class T>
using Tile = void (*)(int64_t, const T*, int64_t, const T*, const T*, int64_t, T*, int64_t);

template <class T, int V, size_t... R>
constexpr std::array<Tile<T>, sizeof...(R)> tilesOf(std::index_sequence<R...>) {
  return {&tile<T, static_cast<int>(R) + 1, V>...};
}

// The tile kernel of 1 to kTileRows rows and one or two vectors.
template <class T>
Tile<T> tileOf(int64_t rows, int64_t vectors) {
  constexpr auto sizes = std::make_index_sequence<kTileRows>();
  static constexpr std::array<std::array<Tile<T>, kTileRows>, 2> table = {tilesOf<T, 1>(sizes), tilesOf<T, 2>(sizes)};
  return table[static_cast<size_t>(vectors - 1)][static_cast<size_t>(rows - 1)];
}

// Calls fn(first, count) for groups of at most kTileRows rows, as even as can be: the smaller a tile, the slower.
template <class Fn>
void rowGroups(int64_t rows, Fn&& fn) {
  const int64_t groups = ceilDiv(rows, kTileRows);
  for (int64_t g = 0; g < groups; g++) fn(rows * g / groups, rows * (g + 1) / groups - rows * g / groups);
}

// Calls fn(first, count, width) for the panels of `columns` columns: `width` is kPanel, or one vector if that is enough
// for what is left. A panel of `depth` steps takes width * depth elements and starts at first * depth; columns beyond
// `count` are zeros.
template <class T, class Fn>
void panels(int64_t columns, Fn&& fn) {
  for (int64_t j = 0; j < columns; j += kPanel<T>) {
    const int64_t count = std::min(kPanel<T>, columns - j);
    fn(j, count, count > kLanes<T> ? kPanel<T> : kLanes<T>);
  }
}

// Elements that `columns` packed columns of `depth` elements take.
template <class T>
constexpr int64_t packedSize(int64_t columns, int64_t depth) {
  return roundUp(columns, kLanes<T>) * depth;
}

// Packs a matrix of `depth` rows; row(k) points to its contiguous elements.
template <class T, class Row>
void packRows(int64_t columns, int64_t depth, Row&& row, T* to) {
  panels<T>(columns, [&](int64_t j, int64_t count, int64_t width) {
    T* panel = to + j * depth;
    for (int64_t k = 0; k < depth; k++, panel += width) {
      const T* from = row(k) + j;
      if (count == kPanel<T>) {
        store(panel, load(from));
        store(panel + kLanes<T>, load(from + kLanes<T>));
      } else {
        for (int64_t i = 0; i < count; i++) panel[i] = from[i];
        for (int64_t i = count; i < width; i++) panel[i] = T(0);
      }
    }
  });
}

// Packs the transpose of a matrix: column j of B is the row of `depth` elements at from + j * ld.
template <class T>
void packColumns(int64_t columns, int64_t depth, const T* from, int64_t ld, T* to) {
  panels<T>(columns, [&](int64_t j, int64_t count, int64_t width) {
    T* panel = to + j * depth;
    transpose(count, depth, from + j * ld, ld, [&](int64_t k) { return panel + k * width; });
    for (int64_t k = 0; k < depth && count < width; k++)
      std::fill(panel + k * width + count, panel + (k + 1) * width, T(0));
  });
}

// C (+)= A B for operands that fit the cache: `b` holds packed panels of `depth` steps, and rows of C have room for
// whole vectors.
template <class T>
void multiply(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t lda, const T* b, bool accumulate, T* c,
              int64_t ldc) {
  panels<T>(columns, [&](int64_t j, int64_t, int64_t width) {
    rowGroups(rows, [&](int64_t i, int64_t group) {
      T* first = c + i * ldc + j;
      tileOf<T>(group, width / kLanes<T>)(depth, a + i * lda, lda, b + j * depth, accumulate ? first : nullptr, ldc,
                                          first, ldc);
    });
  });
}

// B packed as a whole, for gemmRegion.
template <class T>
struct Packed {
  const T* data;
  int64_t depth;
};

// A as rows of contiguous elements, `ld` apart, for gemmRegion: read where they lie.
template <class T>
struct Rows {
  const T* data;
  int64_t ld;

  // Whether that is faster than through a copy: not where the rows of a tile share sets of the first-level cache.
  static bool pays(int64_t ld) { return ld * static_cast<int64_t>(sizeof(T)) % 4096 != 0; }
};

// Elements of scratch that gemmRegion needs, beside a Packed B or with a callable one.
template <class T>
constexpr int64_t regionScratch(bool packed) {
  return kBlockRows * (kBlockDepth + kRowGap) + (packed ? 0 : kBlockDepth * kBlockColumns);
}

// Whether rows of C lie at equal distances.
template <class T>
bool evenlySpaced(T* const* rows, int64_t count) {
  for (int64_t i = 2; i < count; i++) {
    if (rows[i] - rows[i - 1] != rows[1] - rows[0]) return false;
  }
  return true;
}

// One tile through a copy on the stack: for columns that do not fill the vectors, or rows that are not equally spaced.
template <class T>
void tileByCopy(int64_t rows, int64_t count, int64_t width, int64_t depth, const T* a, int64_t lda, const T* b,
                const T* init, bool accumulate, T* const* c, int64_t column) {
  T copy[kTileRows * kPanel<T>] = {};
  for (int64_t i = 0; i < rows; i++) {
    const T* from = accumulate ? c[i] + column : init;
    if (from) std::copy_n(from, count, copy + i * width);
  }
  tileOf<T>(rows, width / kLanes<T>)(depth, a, lda, b, copy, width, copy, width);
  for (int64_t i = 0; i < rows; i++) std::copy(copy + i * width, copy + i * width + count, c[i] + column);
}

// What gemmRegion does with finished sums that stay as they are.
template <class T>
void unfinished(T*, int64_t) {}

// One thread's region of C.
//   a(row, rows, k, depth, to, ld)    copies that block of A to row-major `to`; or a is a Rows
//   b(column, columns, k, depth, to)  packs that block of B; or b is a Packed, from the region's first column on
//   bias                              null, or one element a column
//   c(row)                            address of a row of C
//   finish(from, count)               called for each part of a row of C when it has its sums, while it is in the cache
template <class T, class A, class B, class C, class Finish>
void gemmRegion(int64_t rows, int64_t columns, int64_t depth, const A& a, const B& b, const T* bias, const C& c,
                const Finish& finish, T* scratch) {
  constexpr bool packed = std::is_same_v<B, Packed<T>>;
  T* blockA = scratch;
  T* blockB = scratch + kBlockRows * (kBlockDepth + kRowGap);
  T* at[kBlockRows];
  const int64_t blocks = std::max<int64_t>(1, ceilDiv(depth, kBlockDepth));
  // Columns [n, n + width) of rows [m, m + height), plus the products of one block of the depth.
  const auto product = [&](int64_t n, int64_t width, int64_t m, int64_t height, int64_t block, int64_t k,
                           int64_t step) {
    const T* left = blockA;
    int64_t lda = step + kRowGap;
    if constexpr (std::is_same_v<A, Rows<T>>) {
      left = a.data + m * a.ld + k;
      lda = a.ld;
    } else {
      a(m, height, k, step, blockA, lda);
    }
    for (int64_t i = 0; i < height; i++) at[i] = c(m + i) + n;
    panels<T>(width, [&](int64_t j, int64_t count, int64_t panelWidth) {
      const T* panel;
      if constexpr (packed) {
        panel = b.data + (n + j) * b.depth + k * panelWidth;
      } else {
        panel = blockB + j * step;
      }
      const T* start = bias ? bias + n + j : nullptr;
      rowGroups(height, [&](int64_t i, int64_t group) {
        if (count == panelWidth && evenlySpaced(at + i, group)) {
          T* first = at[i] + j;
          const int64_t ldc = group > 1 ? at[i + 1] - at[i] : 0;
          tileOf<T>(group, panelWidth / kLanes<T>)(step, left + i * lda, lda, panel, block ? first : start,
                                                   block ? ldc : 0, first, ldc);
        } else {
          tileByCopy<T>(group, count, panelWidth, step, left + i * lda, lda, panel, start, block > 0, at + i, j);
        }
      });
    });
    for (int64_t i = 0; i < height && block == blocks - 1; i++) finish(at[i], width);
  };
  const auto depthOf = [&](int64_t block) { return depth * block / blocks; };
  const int64_t most = packed ? kPackedColumns : kBlockColumns;
  for (int64_t n = 0; n < columns; n += most) {
    const int64_t width = std::min(most, columns - n);
    if constexpr (packed) {  // C stays in the cache
      for (int64_t m = 0; m < rows; m += kBlockRows) {
        for (int64_t block = 0; block < blocks; block++) {
          const int64_t k = depthOf(block);
          product(n, width, m, std::min(kBlockRows, rows - m), block, k, depthOf(block + 1) - k);
        }
      }
    } else {  // a block of B is packed once
      for (int64_t block = 0; block < blocks; block++) {
        const int64_t k = depthOf(block), step = depthOf(block + 1) - k;
        b(n, width, k, step, blockB);
        for (int64_t m = 0; m < rows; m += kBlockRows)
          product(n, width, m, std::min(kBlockRows, rows - m), block, k, step);
      }
    }
  }
}

// How many parts rows and columns are cut into for `threads` regions: the cut with the least work for the slowest.
struct Grid {
  int64_t rows, columns;
};
template <class T>
Grid gridOf(int64_t rows, int64_t columns, int64_t threads, bool packed) {
  Grid best{1, 1};
  int64_t least = INT64_MAX;
  for (int64_t r = 1; r <= threads; r++) {
    const int64_t c = threads / r;
    const int64_t height = roundUp(ceilDiv(rows, r), kTileRows), width = roundUp(ceilDiv(columns, c), kPanel<T>);
    // Packing an element of B takes about as long as multiplying it with 16 rows.
    const int64_t work = height * width + (packed ? 0 : 16 * width);
    if (work < least) {
      least = work;
      best = {r, c};
    }
  }
  return best;
}

// Range `part` of `parts` of [0, n), cut at multiples of `unit`.
struct Range {
  int64_t begin, end;
  int64_t size() const { return end - begin; }
};
inline Range partOf(int64_t n, int64_t unit, int64_t part, int64_t parts) {
  const int64_t units = ceilDiv(n, unit);
  return {std::min(n, units * part / parts * unit), std::min(n, units * (part + 1) / parts * unit)};
}

}  // namespace refl::REFL_ISA
