// Sums and largest elements over any set of axes, and argmax.
//
// The axes of x merge into alternating kept and reduced runs, which leaves two kernels: rows (the innermost run is
// reduced) and columns (it is kept, as for a bias gradient). The elements behind one result are cut into chunks that
// depend on the shape alone; chunks go to threads, leave partial results in scratch, and are combined in order. So the
// bits do not depend on the thread count. x is read once; one operation an element.
#include <limits>

#include "cpu/support.h"

namespace refl::REFL_ISA {

namespace {

constexpr int64_t kChunk = 16384;  // elements of x behind one partial result of the row kernel
constexpr int64_t kTile = 256;     // columns that one chunk of the column kernel covers
constexpr int64_t kBlock = 128;    // elements that are added up in T before they go on to the accumulator

// Float sums run over kBlock elements per vector lane (rows) or per column, then continue in double.
template <class T>
struct Sum {
  using Acc = double;
  static constexpr double identity() { return 0; }
  static T join(T a, T b) { return a + b; }
  static double merge(double a, double b) { return a + b; }
  static double row(const T* x, int64_t n) {
    double total = 0;
    for (int64_t i = 0; i < n; i += 16 * kBlock) {
      const int64_t end = std::min(n, i + 16 * kBlock);
      T part = 0;
#pragma omp simd reduction(+ : part)
      for (int64_t j = i; j < end; j++) part += x[j];
      total += static_cast<double>(part);
    }
    return total;
  }
};

// NaN if any element is.
template <class T>
struct Max {
  using Acc = T;
  static constexpr T identity() { return -std::numeric_limits<T>::infinity(); }
  static T join(T a, T b) { return a >= b || a != a ? a : b; }
  static T merge(T a, T b) { return join(a, b); }
  static T row(const T* x, int64_t n) {
    T most = identity();
    int nan = 0;
#pragma omp simd reduction(max : most) reduction(| : nan)
    for (int64_t i = 0; i < n; i++) {
      most = x[i] > most ? x[i] : most;
      nan |= x[i] != x[i];
    }
    return nan ? std::numeric_limits<T>::quiet_NaN() : most;
  }
};

// The offsets in x of every index over some axes, in row-major order.
class Offsets {
 public:
  void add(int64_t extent, int64_t stride) {
    axes_.push_back({extent, stride});
    count_ *= extent;
  }
  int64_t count() const { return count_; }
  int64_t at(int64_t i) const {
    if (axes_.empty()) return 0;
    int64_t offset = 0;
    for (size_t a = axes_.size(); a-- > 1;) {
      offset += i % axes_[a].extent * axes_[a].stride;
      i /= axes_[a].extent;
    }
    return offset + i * axes_[0].stride;
  }

 private:
  struct Axis {
    int64_t extent, stride;
  };
  std::vector<Axis> axes_;
  int64_t count_ = 1;
};

// x as (kept x reduced x width): `width` elements lie side by side, and belong to one result or to `width` results.
struct Plan {
  Offsets kept, reduced;
  int64_t width = 1;
  bool reducesRows = true;
};

Plan planOf(const Shape& shape, const std::vector<int64_t>& axes) {
  struct Run {
    int64_t extent, stride;
    bool reduced;
  };
  std::vector<Run> runs;  // innermost first
  int64_t stride = 1;
  for (int64_t i = static_cast<int64_t>(shape.size()) - 1; i >= 0; i--) {
    const int64_t extent = shape[static_cast<size_t>(i)];
    const bool reduced = std::find(axes.begin(), axes.end(), i) != axes.end();
    if (extent != 1) {
      if (!runs.empty() && runs.back().reduced == reduced)
        runs.back().extent *= extent;
      else
        runs.push_back({extent, stride, reduced});
    }
    stride *= extent;
  }
  Plan plan;
  if (runs.empty()) return plan;
  plan.width = runs[0].extent;
  plan.reducesRows = runs[0].reduced;
  for (size_t r = runs.size(); r-- > 1;) {
    Offsets& offsets = runs[r].reduced ? plan.reduced : plan.kept;
    offsets.add(runs[r].extent, runs[r].stride);
  }
  return plan;
}

// One result for each kept index. A chunk is a piece of one row, or some whole rows.
template <class T, class Op>
Bound reduceRows(const Plan& plan) {
  using Acc = typename Op::Acc;
  const int64_t pieces = std::max<int64_t>(1, (plan.width + kChunk - 1) / kChunk);
  const int64_t rows = std::max<int64_t>(1, kChunk / std::max<int64_t>(1, plan.width));
  const int64_t groups = std::max<int64_t>(1, (plan.reduced.count() + rows - 1) / rows);
  const int64_t chunks = pieces * groups, outputs = plan.kept.count();
  const auto run = [=](const Args& args) {
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    Acc* partial = reinterpret_cast<Acc*>(args.scratch);
    const int64_t cost = std::max<int64_t>(1, std::min(rows, plan.reduced.count()) * std::min(plan.width, kChunk));
    parallelFor(outputs * chunks, kChunk / cost, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; unit++) {
        const int64_t output = unit / chunks, group = unit % chunks / pieces, piece = unit % pieces;
        const T* base = x + plan.kept.at(output) + piece * kChunk;
        const int64_t n = std::min(plan.width - piece * kChunk, kChunk);
        Acc acc = Op::identity();
        for (int64_t r = group * rows; r < std::min((group + 1) * rows, plan.reduced.count()); r++) {
          acc = Op::merge(acc, Op::row(base + plan.reduced.at(r), n));
        }
        if (chunks == 1)
          y[output] = static_cast<T>(acc);
        else
          partial[unit] = acc;
      }
    });
    if (chunks == 1) return;
    for (int64_t output = 0; output < outputs; output++) {
      Acc acc = Op::identity();
      for (int64_t c = 0; c < chunks; c++) acc = Op::merge(acc, partial[output * chunks + c]);
      y[output] = static_cast<T>(acc);
    }
  };
  return {run, chunks == 1 ? 0 : static_cast<size_t>(outputs * chunks) * sizeof(Acc)};
}

// `width` results for each kept index. A chunk is a tile of columns by at most 1/64 of the rows (256 at the least).
template <class T, class Op>
Bound reduceColumns(const Plan& plan) {
  using Acc = typename Op::Acc;
  const int64_t height = plan.reduced.count();
  const int64_t rows = std::max<int64_t>(256, (height + 63) / 64);
  const int64_t chunks = std::max<int64_t>(1, (height + rows - 1) / rows);
  const int64_t tiles = (plan.width + kTile - 1) / kTile, outputs = plan.kept.count() * plan.width;
  const auto run = [=](const Args& args) {
    const T* x = args.in[0].as<T>();
    T* y = args.out[0].as<T>();
    Acc* partial = reinterpret_cast<Acc*>(args.scratch);
    const int64_t cost = std::max<int64_t>(1, std::min(rows, height) * std::min(plan.width, kTile));
    parallelFor(plan.kept.count() * chunks * tiles, kChunk / cost, [&](int64_t begin, int64_t end) {
      for (int64_t unit = begin; unit < end; unit++) {
        const int64_t tile = unit % tiles, chunk = unit / tiles % chunks, kept = unit / tiles / chunks;
        const int64_t first = tile * kTile, n = std::min(plan.width - first, kTile);
        const T* base = x + plan.kept.at(kept) + first;
        const int64_t last = std::min((chunk + 1) * rows, height);
        Acc acc[kTile];
        std::fill(acc, acc + n, Op::identity());
        for (int64_t block = chunk * rows; block < last; block += kBlock) {
          T part[kTile];
          std::fill(part, part + n, static_cast<T>(Op::identity()));
          const int64_t stop = std::min(block + kBlock, last);
          int64_t r = block;
          // Four rows at a time: four streams from memory, and a quarter of the traffic on `part`.
          for (; r + 4 <= stop; r += 4) {
            const T *r0 = base + plan.reduced.at(r), *r1 = base + plan.reduced.at(r + 1);
            const T *r2 = base + plan.reduced.at(r + 2), *r3 = base + plan.reduced.at(r + 3);
#pragma omp simd
            for (int64_t i = 0; i < n; i++) {
              part[i] = Op::join(Op::join(Op::join(Op::join(part[i], r0[i]), r1[i]), r2[i]), r3[i]);
            }
          }
          for (; r < stop; r++) {
            const T* row = base + plan.reduced.at(r);
#pragma omp simd
            for (int64_t i = 0; i < n; i++) part[i] = Op::join(part[i], row[i]);
          }
          for (int64_t i = 0; i < n; i++) acc[i] = Op::merge(acc[i], static_cast<Acc>(part[i]));
        }
        Acc* to = partial + chunk * outputs + kept * plan.width + first;
        if (chunks == 1)
          std::copy(acc, acc + n, y + kept * plan.width + first);
        else
          std::copy(acc, acc + n, to);
      }
    });
    if (chunks == 1) return;
    parallelFor(outputs, kChunk / chunks, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) {
        Acc acc = Op::identity();
        for (int64_t c = 0; c < chunks; c++) acc = Op::merge(acc, partial[c * outputs + i]);
        y[i] = static_cast<T>(acc);
      }
    });
  };
  return {run, chunks == 1 ? 0 : static_cast<size_t>(outputs * chunks) * sizeof(Acc)};
}

template <template <class> class Op>
Bound bindReduction(const NodeSpec& node) {
  const Plan plan = planOf(node.inputs[0].shape, node.integers("axes"));
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return plan.reducesRows ? reduceRows<T, Op<T>>(plan) : reduceColumns<T, Op<T>>(plan);
  });
}

}  // namespace

Bound bindSum(const NodeSpec& node) { return bindReduction<Sum>(node); }
Bound bindAmax(const NodeSpec& node) { return bindReduction<Max>(node); }

// Threads split the results; each is one scan, whose first largest element (or first NaN) wins.
Bound bindArgmax(const NodeSpec& node) {
  const Shape& shape = node.inputs[0].shape;
  const auto axis = static_cast<size_t>(node.integer("axis"));
  const int64_t n = shape[axis], outputs = node.outputs[0].size();
  int64_t stride = 1;
  for (size_t i = axis + 1; i < shape.size(); i++) stride *= shape[i];
  return onFloat(node.inputs[0].dtype, node, [&](auto tag) -> Bound {
    using T = decltype(tag);
    const auto run = [=](const Args& args) {
      parallelFor(outputs, kChunk / n, [&](int64_t begin, int64_t end) {
        for (int64_t o = begin; o < end; o++) {
          const T* x = args.in[0].as<T>() + o / stride * stride * n + o % stride;
          int64_t best = 0;
          for (int64_t i = 1; i < n; i++) {
            const T v = x[i * stride], most = x[best * stride];
            if (v > most || (v != v && most == most)) best = i;
          }
          args.out[0].as<int32_t>()[o] = static_cast<int32_t>(best);
        }
      });
    };
    return {run, 0};
  });
}

}  // namespace refl::REFL_ISA
