#pragma once
// An image seen as a matrix of patches: row (n, y, x) and column (ky, kx, c) is channel c of pixel
// (y * strideY - top + ky, x * strideX - left + kx) of image n, or 0 where that lies outside. Convolutions are products
// with this matrix, which only ever exists in blocks that fit the cache.
#include <algorithm>
#include <cstdint>

#include "cpu/gemm.h"

namespace refl::REFL_ISA {

struct Patches {
  int64_t height, width, pixel;  // of the NHWC images; `pixel` elements a pixel
  int64_t channels;              // of which these are read
  int64_t rows, columns;         // patches an image
  int64_t strideY, strideX;
  int64_t top, left;  // the first patch starts at pixel (-top, -left); may be negative
  int64_t kernelHeight, kernelWidth;

  int64_t depth() const { return kernelHeight * kernelWidth * channels; }
  // Whether row i of the matrix is pixel i of the images.
  bool pixelwise() const {
    return kernelHeight == 1 && kernelWidth == 1 && strideY == 1 && strideX == 1 && top == 0 && left == 0 &&
           rows == height && columns == width;
  }
};

// Copies columns [k, k + depth) of `count` patches from `row` on to rows of `ld` elements. The pixels of a kernel row
// that lie side by side in memory are one run.
template <class T>
void copyPatches(const Patches& p, const T* images, int64_t row, int64_t count, int64_t k, int64_t depth, T* to,
                 int64_t ld) {
  const int64_t taps = p.channels == p.pixel ? p.kernelWidth : 1;                            // a run
  const int64_t run = taps * p.channels, runs = p.kernelWidth / std::max<int64_t>(1, taps);  // a kernel row
  for (int64_t i = 0; i < count; i++, to += ld) {
    const int64_t at = row + i, patch = at % (p.rows * p.columns);
    const T* image = images + at / (p.rows * p.columns) * p.height * p.width * p.pixel;
    const int64_t y0 = patch / p.columns * p.strideY - p.top, x0 = patch % p.columns * p.strideX - p.left;
    T* next = to;
    for (int64_t line = depth ? k / run : 0, from = k - line * run, left = depth; left > 0; line++, from = 0) {
      const int64_t end = std::min(run, from + left);
      const int64_t y = y0 + line / runs, x = x0 + line % runs;
      // Elements [low, high) of the run lie inside of the image.
      const bool inside = y >= 0 && y < p.height;
      const int64_t low = std::clamp(inside ? -x * p.channels : end, from, end);
      const int64_t high = std::clamp((p.width - x) * p.channels, low, end);
      const T* source = image + (y * p.width + x) * p.pixel;
      std::fill(next, next + (low - from), T(0));
      std::copy(source + low, source + high, next + (low - from));
      std::fill(next + (high - from), next + (end - from), T(0));
      next += end - from;
      left -= end - from;
    }
  }
}

// Packs columns [column, column + count) of `depth` patches from `row` on, as panels whose rows are patches.
template <class T>
void packPatches(const Patches& p, const T* images, int64_t column, int64_t count, int64_t row, int64_t depth, T* to) {
  if (p.channels % kPanel<T> != 0 || column % kPanel<T> != 0) {
    T line[kBlockColumns] = {};
    for (int64_t i = 0; i < depth; i++) {
      copyPatches(p, images, row + i, 1, column, count, line, 0);
      panels<T>(count,
                [&](int64_t j, int64_t, int64_t width) { std::copy_n(line + j, width, to + j * depth + i * width); });
    }
    return;
  }
  // A panel is some channels of one tap, and neighbouring patches take them from neighbouring pixels.
  panels<T>(count, [&](int64_t j, int64_t, int64_t) {
    const int64_t tap = (column + j) / p.channels, ky = tap / p.kernelWidth, kx = tap % p.kernelWidth;
    T* panel = to + j * depth;
    for (int64_t i = 0; i < depth;) {
      const int64_t line = (row + i) / p.columns, first = (row + i) % p.columns;
      const int64_t end = std::min(p.columns, first + depth - i), y = line % p.rows * p.strideY - p.top + ky;
      const bool inside = y >= 0 && y < p.height;
      const T* from = images + (line / p.rows * p.height + y) * p.width * p.pixel + (column + j) % p.channels;
      for (int64_t at = first; at < end; at++, panel += kPanel<T>) {
        const int64_t x = at * p.strideX - p.left + kx;
        const bool read = inside && x >= 0 && x < p.width;
        store(panel, read ? load(from + x * p.pixel) : Vector<T>{});
        store(panel + kLanes<T>, read ? load(from + x * p.pixel + kLanes<T>) : Vector<T>{});
      }
      i += end - first;
    }
  });
}

}  // namespace refl::REFL_ISA
