// Resizing of NHWC images. Every mode is linear and separable: each output row is a weighted sum of input rows, each
// pixel of it one of pixels of that sum. The weights are made once, in float64, when a node is bound; the gradient is
// the same code over the transposed weights, hence the exact adjoint.
//
// Work is split over output rows. A thread sums the input rows (w*c contiguous values) into a scratch row that stays
// in cache, then sums that row's pixels (c contiguous values) into the output, so memory traffic is one read of the
// input rows touched and one write of the output. Operations: 2 * h' * (w * rowTaps + w' * columnTaps) * c an image,
// in the element type: sums are a few terms long.
#include <cstring>

#include "cpu/support.h"

namespace refl::REFL_ISA {
namespace {

enum class Mode { nearest, bilinear, bicubic };

// A sparse matrix of one axis: output i is the sum of weight[k] * input[index[k]], k in [start[i], start[i + 1]).
template <class T>
struct Taps {
  std::vector<int64_t> start{0}, index;
  std::vector<T> weight;

  int64_t rows() const { return static_cast<int64_t>(start.size()) - 1; }
};

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

// Keys' cubic convolution kernel with the free parameter a.
double cubic(double x, double a) {
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return ((x - 5) * x + 8) * a * x - 4 * a;
  return 0;
}

struct Filter {
  Mode mode;
  bool antialias;

  double operator()(double x) const {
    return mode == Mode::bilinear ? triangle(x) : cubic(x, antialias ? -0.5 : -0.75);
  }
  double radius() const { return mode == Mode::bilinear ? 1 : 2; }
};

// The dense weights (input index, weight) of output i where `in` positions become `out`; conventions as in PyTorch's
// interpolate with align_corners off.
std::vector<std::pair<int64_t, double>> weightsAt(int64_t i, int64_t in, int64_t out, Filter filter) {
  if (filter.mode == Mode::nearest) return {{i * in / out, 1.0}};
  const double ratio = static_cast<double>(in) / static_cast<double>(out);
  const double center = (static_cast<double>(i) + 0.5) * ratio;  // where pixel j spans [j, j + 1)
  std::vector<std::pair<int64_t, double>> taps;
  if (filter.antialias) {
    // The filter is stretched by the ratio where the image shrinks, cut at the border and normalised.
    const double stretch = std::max(1.0, ratio), reach = filter.radius() * stretch;
    const auto first = std::max<int64_t>(0, static_cast<int64_t>(center - reach + 0.5));
    const auto last = std::min<int64_t>(in, static_cast<int64_t>(center + reach + 0.5));
    double total = 0;
    for (int64_t j = first; j < last; ++j) {
      taps.emplace_back(j, filter((static_cast<double>(j) + 0.5 - center) / stretch));
      total += taps.back().second;
    }
    for (auto& tap : taps) tap.second /= total;
    return taps;
  }
  // A fixed number of taps around the position; those beyond the border read the border.
  const auto base = static_cast<int64_t>(std::floor(center - 0.5));
  const auto radius = static_cast<int64_t>(filter.radius());
  for (int64_t j = base - radius + 1; j <= base + radius; ++j) {
    const int64_t clamped = std::clamp<int64_t>(j, 0, in - 1);
    const double weight = filter(static_cast<double>(j) + 0.5 - center);
    if (!taps.empty() && taps.back().first == clamped)
      taps.back().second += weight;
    else
      taps.emplace_back(clamped, weight);
  }
  return taps;
}

// The weights that take `in` positions to `out`, or, transposed, those that take gradients back from `out` to `in`.
template <class T>
Taps<T> tapsOf(int64_t in, int64_t out, Filter filter, bool transposed) {
  std::vector<std::vector<std::pair<int64_t, double>>> rows(transposed ? in : out);
  for (int64_t i = 0; i < out; ++i) {
    for (const auto& [j, weight] : weightsAt(i, in, out, filter)) {
      if (transposed)
        rows[j].emplace_back(i, weight);
      else
        rows[i].emplace_back(j, weight);
    }
  }
  Taps<T> taps;
  for (const auto& row : rows) {
    for (const auto& [j, weight] : row) {
      taps.index.push_back(j);
      taps.weight.push_back(static_cast<T>(weight));
    }
    taps.start.push_back(static_cast<int64_t>(taps.index.size()));
  }
  return taps;
}

// sum = the taps' weighted sum of vectors of n values that lie `n` apart from `from`; up to four a pass over `sum`.
template <class T>
void weightedSum(const Taps<T>& taps, int64_t row, const T* __restrict from, int64_t n, T* __restrict sum) {
  int64_t k = taps.start[row];
  const int64_t end = taps.start[row + 1];
  if (k == end) return void(std::fill_n(sum, n, T{0}));
  const T* a = from + taps.index[k] * n;
  const T wa = taps.weight[k];
  if (end - k == 1 && wa == T{1}) return void(std::memcpy(sum, a, n * sizeof(T)));
  if (end - k >= 2) {
    const T* b = from + taps.index[k + 1] * n;
    const T wb = taps.weight[k + 1];
    for (int64_t c = 0; c < n; ++c) sum[c] = wa * a[c] + wb * b[c];
    k += 2;
  } else {
    for (int64_t c = 0; c < n; ++c) sum[c] = wa * a[c];
    k += 1;
  }
  for (; k + 1 < end; k += 2) {
    const T *p = from + taps.index[k] * n, *q = from + taps.index[k + 1] * n;
    const T wp = taps.weight[k], wq = taps.weight[k + 1];
    for (int64_t c = 0; c < n; ++c) sum[c] += wp * p[c] + wq * q[c];
  }
  if (k < end) {
    const T* p = from + taps.index[k] * n;
    for (int64_t c = 0; c < n; ++c) sum[c] += taps.weight[k] * p[c];
  }
}

template <class T>
Bound bindSeparable(const NodeSpec& node, bool transposed) {
  const Shape &from = node.inputs[0].shape, &to = node.outputs[0].shape;
  const Filter filter{static_cast<Mode>(node.integer("mode")), node.flag("antialias")};
  const auto taps = [&](int64_t axis) {
    return transposed ? tapsOf<T>(to[axis], from[axis], filter, true) : tapsOf<T>(from[axis], to[axis], filter, false);
  };
  const int64_t height = from[1], width = from[2], channels = from[3], rowSize = width * channels;
  const int64_t outWidth = to[2], outRow = outWidth * channels, rows = to[0] * to[1];
  const int64_t shares = std::min<int64_t>(rows, omp_get_max_threads());  // one scratch row each
  return {[=, down = taps(1), across = taps(2)](const Args& args) {
            const T* x = args.in[0].as<const T>();
            T* y = args.out[0].as<T>();
            parallelFor(shares, 1, [&](int64_t first, int64_t last) {
              T* sum = reinterpret_cast<T*>(args.scratch) + first * rowSize;
              for (int64_t i = rows * first / shares; i < rows * last / shares; ++i) {
                const int64_t n = i / down.rows(), r = i - n * down.rows();
                weightedSum(down, r, x + n * height * rowSize, rowSize, sum);
                for (int64_t p = 0; p < outWidth; ++p)
                  weightedSum(across, p, sum, channels, y + i * outRow + p * channels);
              }
            });
          },
          static_cast<size_t>(shares * rowSize) * sizeof(T)};
}

// Nearest: rows whose source row is that of the row above are copied from it, pixels are copied one by one.
template <class T>
Bound bindNearest(const NodeSpec& node) {
  const Shape &from = node.inputs[0].shape, &to = node.outputs[0].shape;
  const int64_t height = from[1], outHeight = to[1], width = from[2], outWidth = to[2], channels = from[3];
  return {[=, rows = to[0] * to[1]](const Args& args) {
    const T* x = args.in[0].as<const T>();
    T* y = args.out[0].as<T>();
    const int64_t outRow = outWidth * channels;
    parallelFor(rows, 4096 / outRow + 1, [&](int64_t begin, int64_t end) {
      const T* above = nullptr;
      for (int64_t i = begin; i < end; ++i) {
        const int64_t n = i / outHeight, r = i - n * outHeight;
        const T* row = x + (n * height + r * height / outHeight) * width * channels;
        T* out = y + i * outRow;
        if (row == above) {
          std::memcpy(out, out - outRow, outRow * sizeof(T));
          continue;
        }
        above = row;
        for (int64_t p = 0; p < outWidth; ++p) {
          std::memcpy(out + p * channels, row + p * width / outWidth * channels, channels * sizeof(T));
        }
      }
    });
  }};
}

}  // namespace

Bound bindResize(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return static_cast<Mode>(node.integer("mode")) == Mode::nearest ? bindNearest<T>(node)
                                                                    : bindSeparable<T>(node, false);
  });
}

Bound bindResizeGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) { return bindSeparable<decltype(tag)>(node, true); });
}

}  // namespace refl::REFL_ISA
