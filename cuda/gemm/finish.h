// The steps of an Epilogue on elements in registers. All threads take the same branches. A thread has some neighbouring
// columns of several rows at a time, whose operands it reads together, so that they are on their way at once; a step
// is some 8 operations to find out which, and its arithmetic.
#pragma once
#include "activation/functions.h"
#include "gemm/epilogue.h"
#include "simt/simt.h"

namespace refl::cuda {

/** V elements from a column on, at once where `whole`, else those before `columns`. */
template <int V, class From>
SIMT_DEVICE void readPart(const From* from, int column, int columns, bool whole, float (&x)[V]) {
  if (whole) {
    const simt::Pack<From, V> part = simt::load<V>(from + column);
#pragma unroll
    for (int e = 0; e < V; ++e) x[e] = simt::toFloat(part[e]);
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e)
      if (column + e < columns) x[e] = simt::toFloat(from[column + e]);
  }
}

template <int V, class To>
SIMT_DEVICE void writePart(To* to, int column, int columns, bool whole, const float (&v)[V]) {
  simt::Pack<To, V> part;
#pragma unroll
  for (int e = 0; e < V; ++e) part[e] = simt::fromFloat<To>(v[e]);
  if (whole) {
    simt::store(to + column, part);
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e)
      if (column + e < columns) to[column + e] = part[e];
  }
}

/** Writes to the row that begins at element `at` of c. */
template <class T>
SIMT_DEVICE void writeFinished(const Epilogue& epilogue, T* c, int64_t at, int column, int columns, bool whole,
                               const float (&v)[4]) {
  if (epilogue.toFloat)
    writePart(reinterpret_cast<float*>(c) + at, column, columns, whole, v);
  else
    writePart(c + at, column, columns, whole, v);
}

/** As T holds it: what steps take and give is rounded as it would be between nodes, so that no result depends on which
 * operators could follow a product, as in a segment that is recomputed. */
template <class T, int R, int V>
SIMT_DEVICE void roundTo(float (&v)[R][V]) {
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int e = 0; e < V; ++e) v[r][e] = simt::toFloat(simt::fromFloat<T>(v[r][e]));
  }
}

/** Takes columns [column, column + V) of the given rows, counted over a batch, through all steps; rows below 0 are not
 * there. T: the product's type. `whole`: V columns of every operand can be read at once. */
template <class T, int R, int V>
SIMT_DEVICE void finish(const Epilogue& epilogue, const int (&rows)[R], int column, int columns, bool whole,
                        float (&v)[R][V]) {
  roundTo<T>(v);
#pragma unroll 1
  for (int i = 0; i < epilogue.steps; ++i) {
    const Epilogue::Step& step = epilogue.step[i];
    float x[R][V] = {};
    if (step.operand != nullptr) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
        if (rows[r] < 0) continue;
        const int64_t at = static_cast<int64_t>(step.every == 1 ? rows[r] : rows[r] / step.every) * columns;
        readPart(static_cast<const T*>(step.operand) + at, column, columns, whole, x[r]);
      }
    }
    const auto each = [&](const auto& fn) {
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int e = 0; e < V; ++e) v[r][e] = fn(v[r][e], x[r][e]);
      }
    };
    const float a = step.a, b = step.b;
    const bool slope = step.operand != nullptr;
    switch (step.code) {
      case EpilogueCode::kAdd:
        each([&](float y, float z) { return fmaf(a, z, y); });
        break;
      case EpilogueCode::kMul:
        each([](float y, float z) { return y * z; });
        break;
      case EpilogueCode::kAffine:
        each([&](float y, float) { return fmaf(a, y, b); });
        break;
      case EpilogueCode::kRelu:
        each([](float y, float) { return y < 0 ? 0.0f : y; });
        break;
      case EpilogueCode::kLeakyRelu:
        each([&](float y, float) { return y > 0 ? y : a * y; });
        break;
      case EpilogueCode::kLeakyReluGrad:
        each([&](float dy, float z) { return z > 0 ? dy : a * dy; });
        break;
      // A function and its gradient are one case, which keeps the code half as long.
      case EpilogueCode::kGated:
      case EpilogueCode::kGatedGrad:
        each([&](float y, float z) {
          const float u = slope ? z : y, s = sigmoid<T>(a * u);
          return y * (slope ? fmaf(a * u * s, 1.0f - s, s) : s);
        });
        break;
      case EpilogueCode::kGelu:
      case EpilogueCode::kGeluGrad:
        each([&](float y, float z) {
          const float u = slope ? z : y;
          const NormalAt n = normal<T>(u);
          return y * (slope ? fmaf(u, n.pdf, n.cdf) : n.cdf);
        });
        break;
    }
    roundTo<T>(v);
  }
}

/** Where a tile of float sums, kColumns wide, keeps an element: 8 columns at a time change places, so that the rows and
 * columns of mma's accumulators meet different banks. */
template <int kColumns>
SIMT_DEVICE int placeOfSum(int row, int column) {
  return row * kColumns + (kColumns < 32 ? column : column ^ row % 4 * 8);
}

/**
 * Finishes a tile of kRows x kColumns sums in shared memory by kThreads threads, of which this is number `thread`.
 * row(i) says which row of the result a row of the tile is, counted over a batch, or -1; write(its place in the tile,
 * column, values) writes 4 columns of it. The tile's first column is `first`.
 */
template <class T, int kRows, int kColumns, int kThreads, class Row, class Write>
SIMT_DEVICE void finishTile(const Epilogue& epilogue, const float* tile, int thread, const T* bias, int first,
                            int columns, bool whole, const Row& row, const Write& write) {
  constexpr int kAcross = kColumns / 4, kStep = kThreads / kAcross, kTogether = 4;
  static_assert(kThreads % kAcross == 0 && kRows % (kStep * kTogether) == 0, "threads stay in their columns");
  const int within = thread % kAcross * 4, column = first + within;
  if (column >= columns) return;
  float start[4] = {};
  if (bias != nullptr) readPart(bias, column, columns, false, start);
#pragma unroll 1
  for (int i = thread / kAcross; i < kRows; i += kStep * kTogether) {
    int rows[kTogether];
    float v[kTogether][4];
#pragma unroll
    for (int r = 0; r < kTogether; ++r) {
      rows[r] = row(i + r * kStep);
      const simt::Pack<float, 4> sums = simt::load<4>(tile + placeOfSum<kColumns>(i + r * kStep, within));
#pragma unroll
      for (int e = 0; e < 4; ++e) v[r][e] = sums[e] + start[e];
    }
    finish<T>(epilogue, rows, column, columns, whole, v);
#pragma unroll
    for (int r = 0; r < kTogether; ++r)
      if (rows[r] >= 0) write(i + r * kStep, column, v[r]);
  }
}

}  // namespace refl::cuda
