// What judges and their losses are made of: cosines, cross entropy, the distance of directions (LPIPS), and mean
// errors.
//
// Rows, such as the features of one position, are read from memory once; further passes over a row find it in the first
// cache level. Sums over a row are in the element type, one a vector lane, sums of rows in float64, in an order that no
// thread count changes.
#include "cpu/groups.h"
#include "cpu/vecmath.h"

namespace refl::REFL_ISA {
namespace {

// The sum of term(i) over i < n.
template <class T, class Term>
REFL_INLINE T rowSum(int64_t n, Term&& term) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; i++) sum += term(i);
  return sum;
}

// Of a pair of matrices: a [batches, k, width] and b [batches, l, width].
struct CosineShape {
  int64_t k, l, width, rows;
  explicit CosineShape(const NodeSpec& node)
      : k(node.inputs[0].dim(-2)), l(node.inputs[1].dim(-2)), width(node.inputs[0].dim(-1)), rows(1) {
    for (int64_t i = 0; i + 1 < node.inputs[0].rank(); i++) rows *= node.inputs[0].dim(i);
  }
};

template <class T>
void inverseNorms(const T* x, int64_t rows, int64_t width, T eps, T* to) {
  parallelFor(rows, 4096 / (width + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const T* row = x + r * width;
      to[r] = 1 / std::max(std::sqrt(rowSum<T>(width, [&](int64_t i) { return row[i] * row[i]; })), eps);
    }
  });
}

// The gradient by x, of which `k` rows meet `l` of others in each batch: 1/|x| sum(g (other/|other| - cos x/|x|)), the
// second term only where the norm is no floor. y and g of the pair (x, other) lie at x * ofX + other * ofOther.
template <class T>
void cosineGradient(int64_t rows, int64_t k, int64_t l, int64_t width, T eps, const T* x, const T* others,
                    const T* inverse, const T* inverseOther, const T* y, const T* g, int64_t ofX, int64_t ofOther,
                    T* dx) {
  parallelFor(rows, 4096 / (l * width + 1) + 1, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; r++) {
      const int64_t batch = r / k, first = batch * k * l + r % k * ofX;
      const T* row = x + r * width;
      T* to = dx + r * width;
      T along = 0;
      std::fill_n(to, width, T{0});
      for (int64_t j = 0; j < l; j++) {
        const int64_t at = first + j * ofOther, other = batch * l + j;
        const T scale = g[at] * inverseOther[other];
        const T* from = others + other * width;
        along += g[at] * y[at];
#pragma omp simd
        for (int64_t i = 0; i < width; i++) to[i] += scale * from[i];
      }
      const T back = inverse[r] < 1 / eps ? along * inverse[r] : T{0};
#pragma omp simd
      for (int64_t i = 0; i < width; i++) to[i] = inverse[r] * (to[i] - back * row[i]);
    }
  });
}

// A row of logits times the scale, as what its cross entropy and slopes are made of.
template <class T>
struct LogitRow {
  const T* x;
  int64_t classes;
  T scale, most, logSum;
  LogitRow(const T* row, int64_t count, T factor) : x(row), classes(count), scale(factor) {
    most = scale * x[0];
    for (int64_t i = 1; i < classes; i++) most = std::max(most, scale * x[i]);
    logSum = std::log(rowSum<T>(classes, [&](int64_t i) { return vec::exp(scale * x[i] - most); }));
  }
  T logOf(int64_t i) const { return scale * x[i] - most - logSum; }
};

// Calls run(row number, its logits, share(i) of class i) for each row.
template <class T, class Run>
void eachLogitRow(const Args& args, int64_t rows, int64_t classes, Run&& run) {
  const T* x = args.in[0].as<const T>();
  const T scale = args.in[2] ? std::exp(*args.in[2].as<const T>()) : T{1};
  const bool numbers = args.in[1].dtype == DType::i32;
  for (int64_t r = 0; r < rows; r++) {
    const LogitRow<T> row(x + r * classes, classes, scale);
    if (numbers) {
      const int64_t label = args.in[1].as<const int32_t>()[r];
      run(r, row, [&](int64_t i) { return T(i == label); });
    } else {
      const T* shares = args.in[1].as<const T>() + r * classes;
      run(r, row, [&](int64_t i) { return shares[i]; });
    }
  }
}

// x / (|x| + 1e-10), with 1e-15 as the least norm.
template <class T>
struct Direction {
  T norm, inverse;
  bool floored;
  Direction(const T* x, int64_t channels) {
    const T squares = rowSum<T>(channels, [&](int64_t i) { return x[i] * x[i]; });
    floored = squares < T(1e-30);
    norm = std::sqrt(floored ? T(1e-30) : squares);
    inverse = 1 / (norm + T(1e-10));
  }
};

constexpr int64_t kPositions = 64;  // of an image that are summed up together

// Positions of an image and channels of each.
struct Positions {
  int64_t images, positions, channels, chunks;
  explicit Positions(const Operand& x)
      : images(x.dim(0)),
        positions(x.size() / (x.dim(0) * x.dim(-1))),
        channels(x.dim(-1)),
        chunks((positions + kPositions - 1) / kPositions) {}
};

}  // namespace

Bound bindCosines(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    return {[s = CosineShape(node), eps = static_cast<T>(node.number("eps"))](const Args& args) {
      const T *a = args.in[0].as<const T>(), *b = args.in[1].as<const T>();
      T *y = args.out[0].as<T>(), *inverseA = args.out[1].as<T>(), *inverseB = args.out[2].as<T>();
      inverseNorms(a, s.rows, s.width, eps, inverseA);
      inverseNorms(b, args.out[2].size(), s.width, eps, inverseB);
      parallelFor(s.rows, 4096 / (s.l * s.width + 1) + 1, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; r++) {
          for (int64_t j = 0; j < s.l; j++) {
            const int64_t other = r / s.k * s.l + j;
            const T *x = a + r * s.width, *to = b + other * s.width;
            const T product = rowSum<T>(s.width, [&](int64_t i) { return x[i] * to[i]; });
            y[r * s.l + j] = product * inverseA[r] * inverseB[other];
          }
        }
      });
    }};
  });
}

Bound bindCosinesGrad(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    return {[s = CosineShape(node), eps = static_cast<T>(node.number("eps"))](const Args& args) {
      const T *a = args.in[0].as<const T>(), *b = args.in[1].as<const T>(), *y = args.in[2].as<const T>();
      const T *inverseA = args.in[3].as<const T>(), *inverseB = args.in[4].as<const T>();
      const T* g = args.in[5].as<const T>();
      cosineGradient(s.rows, s.k, s.l, s.width, eps, a, b, inverseA, inverseB, y, g, s.l, 1, args.out[0].as<T>());
      cosineGradient(args.in[4].size(), s.l, s.k, s.width, eps, b, a, inverseB, inverseA, y, g, 1, s.l,
                     args.out[1].as<T>());
    }};
  });
}

Bound bindCrossEntropy(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const int64_t classes = node.inputs[0].dim(-1), rows = node.inputs[0].size() / classes;
    return {[=](const Args& args) {
      double total = 0;
      eachLogitRow<T>(args, rows, classes, [&](int64_t, const LogitRow<T>& row, auto&& share) {
        for (int64_t i = 0; i < classes; i++)
          if (share(i) != 0) total -= static_cast<double>(share(i) * row.logOf(i));
      });
      *args.out[0].as<T>() = static_cast<T>(total / static_cast<double>(rows));
    }};
  });
}

// With z = scale x and p its softmax: dz = dy / rows (p sum(shares) - shares), dx = scale dz, dLogScale = sum(dx x).
Bound bindCrossEntropyGrad(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const int64_t classes = node.inputs[0].dim(-1), rows = node.inputs[0].size() / classes;
    return {[=](const Args& args) {
      T* dx = args.out[0].as<T>();
      const T slope = *args.in[3].as<const T>() / static_cast<T>(rows);
      double along = 0;
      eachLogitRow<T>(args, rows, classes, [&](int64_t r, const LogitRow<T>& row, auto&& share) {
        T all = 0;
        for (int64_t i = 0; i < classes; i++) all += share(i);
        for (int64_t i = 0; i < classes; i++) {
          const T d = slope * row.scale * (vec::exp(row.logOf(i)) * all - share(i));
          dx[r * classes + i] = d;
          along += static_cast<double>(d * row.x[i]);
        }
      });
      *args.out[1].as<T>() = static_cast<T>(along);
    }};
  });
}

// Bytes: a and b once. About 10 operations an element.
Bound bindDirectionDistance(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const Positions s(node.inputs[0]);
    const auto run = [s](const Args& args) {
      const T *a = args.in[0].as<const T>(), *b = args.in[1].as<const T>(), *weight = args.in[2].as<const T>();
      auto* partial = reinterpret_cast<double*>(args.scratch);
      parallelFor(s.images * s.chunks, 1 + 4096 / (kPositions * s.channels), [&](int64_t begin, int64_t end) {
        for (int64_t chunk = begin; chunk < end; chunk++) {
          const int64_t image = chunk / s.chunks, first = chunk % s.chunks * kPositions;
          double total = 0;
          for (int64_t p = first; p < std::min(s.positions, first + kPositions); p++) {
            const int64_t at = (image * s.positions + p) * s.channels;
            const T *x = a + at, *y = b + at;
            const T inverseX = Direction<T>(x, s.channels).inverse, inverseY = Direction<T>(y, s.channels).inverse;
            total += static_cast<double>(rowSum<T>(s.channels, [&](int64_t i) {
              const T d = x[i] * inverseX - y[i] * inverseY;
              return weight[i] * d * d;
            }));
          }
          partial[chunk] = total;
        }
      });
      for (int64_t image = 0; image < s.images; image++) {
        double total = 0;
        for (int64_t chunk = 0; chunk < s.chunks; chunk++) total += partial[image * s.chunks + chunk];
        args.out[0].as<T>()[image] = static_cast<T>(total / static_cast<double>(s.positions));
      }
    };
    return {run, static_cast<size_t>(s.images * s.chunks) * sizeof(double)};
  });
}

// With d = a / (|a| + eps) - b / (|b| + eps) and r = 1 / (|a| + eps): da = 2 dy / positions r (w d - a r / |a| sum(w d
// a)), the second term only where the norm is no floor. Bytes: a and b read once, da written; about 16 operations an
// element.
Bound bindDirectionDistanceGrad(const NodeSpec& node) {
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    return {[s = Positions(node.inputs[0])](const Args& args) {
      const T *a = args.in[0].as<const T>(), *b = args.in[1].as<const T>(), *weight = args.in[2].as<const T>();
      const T* dy = args.in[3].as<const T>();
      T* da = args.out[0].as<T>();
      parallelFor(s.images * s.positions, 1 + 4096 / s.channels, [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; p++) {
          const T *x = a + p * s.channels, *y = b + p * s.channels;
          T* to = da + p * s.channels;
          const Direction<T> ours(x, s.channels), theirs(y, s.channels);
          const auto slope = [&](int64_t i) { return weight[i] * (x[i] * ours.inverse - y[i] * theirs.inverse); };
          const T along = rowSum<T>(s.channels, [&](int64_t i) { return slope(i) * x[i]; });
          const T back = ours.floored ? T{0} : along * ours.inverse / ours.norm;
          const T scale = 2 * dy[p / s.positions] * ours.inverse / static_cast<T>(s.positions);
#pragma omp simd
          for (int64_t i = 0; i < s.channels; i++) to[i] = scale * (slope(i) - back * x[i]);
        }
      });
    }};
  });
}

// Bytes: every tensor once; 3 operations an element, in float64.
Bound bindMeanError(const NodeSpec& node) {
  const auto error = [absolute = node.flag("absolute")](auto tag, const Tensor* in, int64_t begin, int64_t end) {
    using T = decltype(tag);
    const T *a = in[0].as<const T>() + begin, *b = in[1].as<const T>() + begin;
    const auto apart = [&](int64_t i) { return static_cast<double>(a[i] - b[i]); };
    const double sum = absolute ? rowSum<double>(end - begin, [&](int64_t i) { return std::abs(apart(i)); })
                                : rowSum<double>(end - begin, [&](int64_t i) { return apart(i) * apart(i); });
    return sum / static_cast<double>(in->size());
  };
  return reduceAll(node, error, [](double total) { return total; });
}

}  // namespace refl::REFL_ISA
