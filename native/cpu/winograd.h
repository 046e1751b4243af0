#pragma once
// 3x3 convolution of stride 1 by Winograd's minimal filtering F(4x4, 3x3), float: 36 products of (tiles x channels) by
// (channels x outputs) matrices instead of 16 * 9 a tile, so 4 times fewer multiplications.
//
// A thread takes a chunk of output tiles at a time: it transforms their 6x6 input patches (V, which stays in its share
// of the cache), then for a few panels of outputs does the 36 products (M) and transforms these back. Beside x and y it
// reads the transformed weights, 4 times the size of the plain ones, once a chunk; the transforms are some 5% of the
// work at 320 channels. Sums are float, in channel order. The interpolation points 0, +-11/16, +-11/8 and infinity are
// exact in float with their squares and keep the error near 3e-6 of the largest output (it is 1e-5 with 0, +-1, +-2).
#include <vector>

#include "cpu/epilogue.h"
#include "cpu/kept.h"

namespace refl::REFL_ISA {

struct Winograd {
  int64_t batch, height, width, channels;  // input
  int64_t outHeight, outWidth, outChannels;
  int64_t top, left;  // the first patch starts at pixel (-top, -left)
  bool turned;        // weights are OIHW with O the input's channels, and the kernel is turned by 180 degrees

  int64_t tilesY() const { return ceilDiv(outHeight, 4); }
  int64_t tilesX() const { return ceilDiv(outWidth, 4); }
  int64_t tiles() const { return batch * tilesY() * tilesX(); }

  // Whether this is the faster way. With fewer tiles reading the larger weights, or making them anew at every run,
  // outweighs the saving.
  bool pays(int64_t kernelHeight, int64_t kernelWidth, bool frozen) const {
    return kernelHeight == 3 && kernelWidth == 3 && channels % kLanes<float> == 0 && outChannels % kLanes<float> == 0 &&
           channels >= 32 && outChannels >= 32 && tiles() >= (frozen ? 16 : 32);
  }
};

namespace winograd {

using V = Vector<float>;
constexpr float kA = 0.6875f, kB = 1.375f, kAA = kA * kA, kBB = kB * kB;

// Six inputs along one axis to the six points, `step` apart.
inline void input(const V* d, int64_t step, V* to, int64_t toStep) {
  const V d1 = d[step], d2 = d[2 * step], d3 = d[3 * step], d4 = d[4 * step];
  to[0] = kAA * kBB * d[0] - (kAA + kBB) * d2 + d4;
  const V evenA = d4 - kBB * d2, oddA = kA * (d3 - kBB * d1);
  to[toStep] = evenA + oddA;
  to[2 * toStep] = evenA - oddA;
  const V evenB = d4 - kAA * d2, oddB = kB * (d3 - kAA * d1);
  to[3 * toStep] = evenB + oddB;
  to[4 * toStep] = evenB - oddB;
  to[5 * toStep] = kAA * kBB * d1 - (kAA + kBB) * d3 + d[5 * step];
}

// Values at the six points to the four outputs.
inline void output(const V* m, int64_t step, V* to, int64_t toStep) {
  const V sumA = m[step] + m[2 * step], differenceA = m[step] - m[2 * step];
  const V sumB = m[3 * step] + m[4 * step], differenceB = m[3 * step] - m[4 * step];
  to[0] = m[0] + sumA + sumB;
  to[toStep] = kA * differenceA + kB * differenceB;
  to[2 * toStep] = kAA * sumA + kBB * sumB;
  to[3 * toStep] = kA * kAA * differenceA + kB * kBB * differenceB + m[5 * step];
}

// Elements of each of the 36 matrices.
inline int64_t matrixSize(const Winograd& w) { return packedSize<float>(w.outChannels, w.channels); }

// Weights that are read together: a panel of outputs, or of a turned kernel one input channel.
inline int64_t partSize(const Winograd& w) {
  return 9 * (w.turned ? w.outChannels : std::min(kPanel<float>, w.outChannels) * w.channels);
}

// g[6][3], which takes a kernel's row to its values at the six points.
struct KernelTransform {
  double g[6][3];

  KernelTransform() {
    const double points[5] = {0, kA, -kA, kB, -kB};
    for (int i = 0; i < 5; i++) {
      double scale = 1;
      for (int k = 0; k < 5; k++) scale *= k == i ? 1 : points[i] - points[k];
      for (int k = 0; k < 3; k++) g[i][k] = std::pow(points[i], k) / scale;
    }
    g[5][0] = g[5][1] = 0;
    g[5][2] = 1;
  }

  // The 36 values G k G^T, `step` apart, of `width` kernels at once, in double: tap t of kernel j is taps[t][j].
  void apply(const float (*taps)[kPanel<float>], int64_t width, bool turned, float* to, int64_t step) const {
    using D = Vector<double>;
    typedef float Half __attribute__((vector_size(kVectorBytes / 2), aligned(4), may_alias));
    for (int64_t j = 0; j < width; j += kLanes<double>) {
      D k[9], half[6][3];
      for (int t = 0; t < 9; t++)
        k[t] = __builtin_convertvector(*reinterpret_cast<const Half*>(taps[turned ? 8 - t : t] + j), D);
      for (int i = 0; i < 6; i++) {
        for (int x = 0; x < 3; x++) half[i][x] = g[i][0] * k[x] + g[i][1] * k[3 + x] + g[i][2] * k[6 + x];
      }
      for (int i = 0; i < 36; i++) {
        const D* row = half[i / 6];
        const double* point = g[i % 6];
        const D sum = point[0] * row[0] + point[1] * row[1] + point[2] * row[2];
        *reinterpret_cast<Half*>(to + i * step + j) = __builtin_convertvector(sum, Half);
      }
    }
  }
};

// Weights that are kept in 16 bits, as a source of packWeights.
template <class S>
struct Kept {
  const S* data;

  const float* part(int64_t first, int64_t count, float* room) const {
    widen(data + first, count, room);
    return room;
  }
};

// The weights as they are, in 16 bits; `room` as below.
template <class S>
void keepWeights(const Winograd& w, const Values& weights, S* to, float* room, int64_t each) {
  const int64_t all = 9 * w.channels * w.outChannels, part = partSize(w);
  parallelFor(ceilDiv(all, part), 1, [&](int64_t begin, int64_t end) {
    float* own = room + omp_get_thread_num() * each;
    for (int64_t at = begin * part; at < std::min(all, end * part); at += part) {
      const int64_t count = std::min(part, all - at);
      narrow(weights.part(at, count, own), count, to + at);
    }
  });
}

// The 36 packed matrices. `room` has `each` elements a thread, for weights that are not in memory as they are.
template <class Source>
void packWeights(const Winograd& w, const Source& weights, float* to, float* room, int64_t each) {
  const KernelTransform transform;
  const int64_t size = matrixSize(w), part = partSize(w);
  parallelFor(w.turned ? w.channels : ceilDiv(w.outChannels, kPanel<float>), 1, [&](int64_t begin, int64_t end) {
    float* own = room + omp_get_thread_num() * each;
    float taps[9][kPanel<float>];
    for (int64_t i = begin; i < end; i++) {
      const int64_t count = std::min(part, 9 * w.channels * w.outChannels - i * part);
      const float* kernels = weights.part(i * part, count, own);
      // One input channel of one panel of outputs: kernels `step` apart from `first` on.
      const auto row = [&](const float* first, int64_t step, int64_t width, float* at) {
        transpose(width, 9, first, step, [&](int64_t t) { return taps[t]; });
        transform.apply(taps, width, w.turned, at, size);
      };
      if (w.turned) {
        panels<float>(w.outChannels, [&](int64_t first, int64_t, int64_t width) {
          row(kernels + 9 * first, 9, width, to + first * w.channels + i * width);
        });
      } else {
        const int64_t width = count / (9 * w.channels);
        float* panel = to + i * kPanel<float> * w.channels;
        for (int64_t c = 0; c < w.channels; c++) row(kernels + 9 * c, 9 * w.channels, width, panel + c * width);
      }
    }
  });
}

// V[point][tile][channel] of tiles [first, first + count), `ld` elements from one tile to the next and `points` from
// one point to the next; `zeros` has a zero for each channel.
inline void transformInput(const Winograd& w, const float* x, int64_t first, int64_t count, const float* zeros,
                           float* v, int64_t ld, int64_t points) {
  for (int64_t t = 0; t < count; t++) {
    const int64_t at = first + t, n = at / (w.tilesY() * w.tilesX());
    const int64_t y0 = at / w.tilesX() % w.tilesY() * 4 - w.top, x0 = at % w.tilesX() * 4 - w.left;
    const float* from[36];
    for (int64_t i = 0; i < 36; i++) {
      const int64_t row = y0 + i / 6, column = x0 + i % 6;
      const bool inside = row >= 0 && row < w.height && column >= 0 && column < w.width;
      from[i] = inside ? x + ((n * w.height + row) * w.width + column) * w.channels : zeros;
    }
    for (int64_t c = 0; c < w.channels; c += kLanes<float>) {
      V d[36], half[36];
      for (int i = 0; i < 36; i++) d[i] = load(from[i] + c);
      for (int i = 0; i < 6; i++) input(d + i, 6, half + i, 6);
      for (int i = 0; i < 6; i++) input(half + 6 * i, 1, d + 6 * i, 1);
      for (int i = 0; i < 36; i++) store(v + i * points + t * ld + c, d[i]);
    }
  }
}

// Writes outputs [o, o + width) of tiles [first, first + count) from M[point][tile][output] and finishes them, pixel by
// pixel.
template <class Finish>
void transformOutput(const Winograd& w, const float* m, int64_t first, int64_t count, int64_t o, int64_t width,
                     const float* bias, const Finish& finish, float* y) {
  for (int64_t t = 0; t < count; t++) {
    const int64_t at = first + t, n = at / (w.tilesY() * w.tilesX());
    const int64_t y0 = at / w.tilesX() % w.tilesY() * 4, x0 = at % w.tilesX() * 4;
    const int64_t rows = std::min<int64_t>(4, w.outHeight - y0), columns = std::min<int64_t>(4, w.outWidth - x0);
    float* to = y + ((n * w.outHeight + y0) * w.outWidth + x0) * w.outChannels + o;
    for (int64_t j = 0; j < width; j += kLanes<float>) {
      V d[36], half[24], result[16];
      for (int i = 0; i < 36; i++) d[i] = load(m + (i * count + t) * width + j);
      for (int i = 0; i < 6; i++) output(d + i, 6, half + i, 6);
      for (int i = 0; i < 4; i++) output(half + 6 * i, 1, result + 4 * i, 1);
      const V start = bias ? load(bias + o + j) : V{};
      for (int64_t row = 0; row < rows; row++) {
        for (int64_t column = 0; column < columns; column++) {
          store(to + (row * w.outWidth + column) * w.outChannels + j, result[4 * row + column] + start);
        }
      }
    }
    for (int64_t row = 0; row < rows; row++) {
      for (int64_t column = 0; column < columns; column++)
        finish(to + (row * w.outWidth + column) * w.outChannels, width);
    }
  }
}

}  // namespace winograd

// Whether the transformed weights are kept: of those that are to be kept in 16 bits the plain ones are. That takes an
// eighth of the memory, and the transform would make their rounding errors larger.
inline bool keepsTransform(const Operand& weight) { return weight.frozen && !isHalf(weight.buffer->packed); }

// Frozen weights are transformed once where that is kept, all others at every run.
template <class S>
Bound bindWinograd(const Winograd& w, const Operand& weight, bool hasBias, const Epilogue<float>& epilogue) {
  constexpr bool narrow = !std::is_same_v<S, float>;
  const int64_t threads = omp_get_max_threads();
  const int64_t ld = w.channels + kRowGap, block = 2 * kPanel<float>;
  // V of a chunk takes 4 MB at most, and there is a chunk or more for each thread. Where all tiles are one chunk,
  // threads divide the outputs instead: each then transforms all tiles, and the weights, which are larger, are read
  // once.
  const int64_t most = std::clamp<int64_t>((4 << 20) / (36 * 4 * ld) / kTileRows * kTileRows, kTileRows, 8 * kTileRows);
  const bool one = w.tiles() <= most && w.tiles() < w.outChannels / threads;
  const int64_t parts = one ? threads : 1;
  const int64_t chunks = one ? 1 : roundUp(ceilDiv(w.tiles(), most), std::min(threads, ceilDiv(w.tiles(), kTileRows)));
  const int64_t largest = ceilDiv(w.tiles(), chunks), sizeV = 36 * largest * ld, sizeM = 36 * largest * block;
  const int64_t each = roundUp(std::max(w.channels + sizeV + sizeM, winograd::partSize(w)), kLanes<float>);

  // One buffer may be seen in several shapes.
  const std::string key = narrow ? "plain" : (w.turned ? "winograd turned " : "winograd ") + std::to_string(w.channels);
  const int64_t transformed = 36 * winograd::matrixSize(w);
  const int64_t copied = narrow ? 9 * w.channels * w.outChannels : transformed;
  const auto frozen = weight.frozen ? weight.buffer->pack(key, static_cast<size_t>(copied) * sizeof(S)) : nullptr;

  const auto run = [=](const Args& args) {
    auto* scratch = reinterpret_cast<float*>(args.scratch);
    float* made = scratch + threads * each;
    const float* u = made;
    std::shared_ptr<std::byte> copy;
    if (frozen) {
      copy = frozen->get([&](Values& values, std::byte* to) {
        if constexpr (narrow) {
          winograd::keepWeights(w, values, reinterpret_cast<S*>(to), scratch, each);
        } else {
          winograd::packWeights(w, values, reinterpret_cast<float*>(to), scratch, each);
        }
      });
      if constexpr (narrow) {
        winograd::packWeights(w, winograd::Kept<S>{reinterpret_cast<const S*>(copy.get())}, made, scratch, each);
      } else {
        u = reinterpret_cast<const float*>(copy.get());
      }
    } else {
      winograd::packWeights(w, Values(args.in[1].data), made, scratch, each);
    }
    const float* bias = hasBias ? args.in[2].as<float>() : nullptr;
    parallelFor(chunks * parts, 1, [&](int64_t begin, int64_t end) {
      float* m = scratch + each * omp_get_thread_num();
      float *v = m + sizeM, *zeros = v + sizeV;
      std::fill_n(zeros, w.channels, 0.0f);
      for (int64_t task = begin; task < end; task++) {
        const Range tiles = partOf(w.tiles(), 1, task / parts, chunks);
        const Range outputs = partOf(w.outChannels, kPanel<float>, task % parts, parts);
        const int64_t count = tiles.size();
        winograd::transformInput(w, args.in[0].as<float>(), tiles.begin, count, zeros, v, ld, count * ld);
        for (int64_t o = outputs.begin; o < outputs.end; o += block) {
          const int64_t width = std::min(block, outputs.end - o);
          for (int64_t i = 0; i < 36; i++) {
            const float* matrix = u + i * winograd::matrixSize(w) + o * w.channels;
            multiply(count, width, w.channels, v + i * count * ld, ld, matrix, false, m + i * count * width, width);
          }
          const auto finish = [&](float* from, int64_t elements) { epilogue.finish(args, from, elements); };
          winograd::transformOutput(w, m, tiles.begin, count, o, width, bias, finish, args.out[0].as<float>());
        }
      }
    });
  };
  Bound bound{run, static_cast<size_t>(threads * each + (frozen && !narrow ? 0 : transformed)) * sizeof(float)};
  if (frozen) bound.packed = {{1, frozen}};
  return bound;
}

}  // namespace refl::REFL_ISA
