#pragma once
// Gradient by the weights of a 3x3 convolution of stride 1 by Winograd's F(3x3, 4x4), float: a tile of 4x4 gradients
// and the 6x6 patch of the image that it met give the 3x3 sums of products in 36 multiplications instead of 144.
//
// Tiles are taken in chunks whose transforms (V of the image, W of the gradient, 36 values a tile and channel) are 32
// MB or less. For a chunk, threads divide the tiles and transform them; then they divide 36 products M += W^T V of
// (outputs x tiles) by (tiles x channels) matrices among them, by point and by blocks of columns. At the end M, four
// times as large as the weights, is transformed back. Beside x and dy, read once, the transforms are written and read
// once, and M is read and written once a chunk. Sums are float: chains of 128 tiles within a chunk, then over the
// chunks.
#include "cpu/winograd.h"

namespace refl::REFL_ISA {

namespace winograd {

// Four gradients along one axis to the six points, `step` apart.
inline void gradient(const V* d, int64_t step, V* to, int64_t toStep) {
  constexpr float zero = 1 / (kAA * kBB), a = 1 / (2 * kAA * (kAA - kBB)), b = 1 / (2 * kBB * (kBB - kAA));
  const V evenA = a * (d[0] + kAA * d[2 * step]), oddA = a * kA * (d[step] + kAA * d[3 * step]);
  const V evenB = b * (d[0] + kBB * d[2 * step]), oddB = b * kB * (d[step] + kBB * d[3 * step]);
  to[0] = zero * d[0];
  to[toStep] = evenA + oddA;
  to[2 * toStep] = evenA - oddA;
  to[3 * toStep] = evenB + oddB;
  to[4 * toStep] = evenB - oddB;
  to[5 * toStep] = d[3 * step];
}

// Values at the six points to the three taps.
inline void taps(const V* m, int64_t step, V* to, int64_t toStep) {
  const V sumA = m[step] + m[2 * step], sumB = m[3 * step] + m[4 * step];
  to[0] = m[0] + sumA + sumB;
  to[toStep] = kA * (m[step] - m[2 * step]) + kB * (m[3 * step] - m[4 * step]);
  to[2 * toStep] = kAA * sumA + kBB * sumB + m[5 * step];
}

// W[point][tile][output] of tiles [first, first + count), `points` elements from one point to the next; `zeros` has a
// zero for each output.
inline void transformGradient(const Winograd& w, const float* dy, int64_t first, int64_t count, const float* zeros,
                              float* to, int64_t points) {
  for (int64_t t = 0; t < count; t++) {
    const int64_t at = first + t, n = at / (w.tilesY() * w.tilesX());
    const int64_t y0 = at / w.tilesX() % w.tilesY() * 4, x0 = at % w.tilesX() * 4;
    const float* from[16];
    for (int64_t i = 0; i < 16; i++) {
      const int64_t row = y0 + i / 4, column = x0 + i % 4;
      const bool inside = row < w.outHeight && column < w.outWidth;
      from[i] = inside ? dy + ((n * w.outHeight + row) * w.outWidth + column) * w.outChannels : zeros;
    }
    for (int64_t o = 0; o < w.outChannels; o += kLanes<float>) {
      V d[16], half[24], all[36];
      for (int i = 0; i < 16; i++) d[i] = load(from[i] + o);
      for (int i = 0; i < 4; i++) gradient(d + i, 4, half + i, 4);
      for (int i = 0; i < 6; i++) gradient(half + 4 * i, 1, all + 6 * i, 1);
      for (int i = 0; i < 36; i++) store(to + i * points + t * w.outChannels + o, all[i]);
    }
  }
}

// dw [O, C, 3, 3] of output o from M[point][output][channel].
inline void transformTaps(const Winograd& w, const float* m, int64_t o, float* dw) {
  const int64_t size = w.outChannels * w.channels;
  for (int64_t c = 0; c < w.channels; c += kLanes<float>) {
    V d[36], half[18], result[9];
    for (int i = 0; i < 36; i++) d[i] = load(m + i * size + o * w.channels + c);
    for (int i = 0; i < 6; i++) taps(d + i, 6, half + i, 6);
    for (int i = 0; i < 3; i++) taps(half + 6 * i, 1, result + 3 * i, 1);
    float* to = dw + (o * w.channels + c) * 9;
    for (int64_t lane = 0; lane < kLanes<float>; lane++) {
      for (int t = 0; t < 9; t++) to[lane * 9 + t] = result[t][lane];
    }
  }
}

}  // namespace winograd

inline Bound bindWinogradGradWeight(const Winograd& w) {
  const int64_t threads = omp_get_max_threads(), width = w.channels + w.outChannels;
  const int64_t chunk = std::min(w.tiles(), std::max<int64_t>(64, (int64_t{32} << 20) / (36 * 4 * width)));
  const int64_t pointsV = chunk * w.channels, pointsW = chunk * w.outChannels, matrix = w.outChannels * w.channels;
  const int64_t block = std::min(w.channels, kBlockColumns), blocks = ceilDiv(w.channels, block);
  const int64_t each = regionScratch<float>(false) + w.outChannels * block;

  const auto run = [=](const Args& args) {
    const float *x = args.in[0].as<float>(), *dy = args.in[1].as<float>();
    float* own = reinterpret_cast<float*>(args.scratch);
    float *v = own + threads * each, *g = v + 36 * pointsV, *m = g + 36 * pointsW, *zeros = m + 36 * matrix;
    std::fill_n(zeros, std::max(w.channels, w.outChannels), 0.0f);
    for (int64_t first = 0; first < w.tiles(); first += chunk) {
      const int64_t count = std::min(chunk, w.tiles() - first);
      parallelFor(count, 1, [&](int64_t begin, int64_t end) {
        winograd::transformInput(w, x, first + begin, end - begin, zeros, v + begin * w.channels, w.channels, pointsV);
        winograd::transformGradient(w, dy, first + begin, end - begin, zeros, g + begin * w.outChannels, pointsW);
      });
      parallelFor(36 * blocks, 1, [&](int64_t begin, int64_t end) {
        float* scratch = own + omp_get_thread_num() * each;
        float* sums = scratch + regionScratch<float>(false);
        for (int64_t task = begin; task < end; task++) {
          const int64_t point = task / blocks, c0 = task % blocks * block, columns = std::min(block, w.channels - c0);
          const auto a = [&](int64_t row, int64_t rows, int64_t k, int64_t depth, float* to, int64_t ld) {
            const float* from = g + point * pointsW + k * w.outChannels + row;
            transpose(depth, rows, from, w.outChannels, [&](int64_t o) { return to + o * ld; });
          };
          const auto b = [&](int64_t column, int64_t wide, int64_t k, int64_t depth, float* to) {
            const float* from = v + point * pointsV + k * w.channels + c0 + column;
            packRows<float>(
                wide, depth, [&](int64_t row) { return from + row * w.channels; }, to);
          };
          gemmRegion<float>(
              w.outChannels, columns, count, a, b, nullptr, [&](int64_t o) { return sums + o * columns; },
              unfinished<float>, scratch);
          for (int64_t o = 0; o < w.outChannels; o++) {
            float* to = m + point * matrix + o * w.channels + c0;
            for (int64_t c = 0; c < columns; c++) to[c] = (first ? to[c] : 0) + sums[o * columns + c];
          }
        }
      });
    }
    parallelFor(w.outChannels, 1, [&](int64_t begin, int64_t end) {
      for (int64_t o = begin; o < end; o++) winograd::transformTaps(w, m, o, args.out[0].as<float>());
    });
  };
  const int64_t elements = threads * each + 36 * (pointsV + pointsW + matrix) + std::max(w.channels, w.outChannels);
  return {run, static_cast<size_t>(elements) * sizeof(float)};
}

}  // namespace refl::REFL_ISA
