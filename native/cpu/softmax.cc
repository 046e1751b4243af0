// Softmax and its logarithm over the last axis, with their gradients. Threads split the rows; a row's three passes
// (largest, sum of exponentials, scaling) run while it is in the first or second cache level, so memory sees one read
// and one write an element. Float rows accumulate in float, one partial sum a vector lane. Safe in place: a row is
// read before it is written.
#include <limits>

#include "cpu/support.h"
#include "cpu/vecmath.h"

namespace refl::REFL_ISA {

namespace {

// A NaN is passed over here: it comes back through the exponentials.
template <class T>
T largest(const T* x, int64_t n) {
  T most = -std::numeric_limits<T>::infinity();
#pragma omp simd reduction(max : most)
  for (int64_t i = 0; i < n; i++) most = x[i] > most ? x[i] : most;
  return most;
}

// Runs `row(args, offset of the row, its length)` for every row.
template <class Row>
Bound overRows(const NodeSpec& node, Row row) {
  const int64_t n = node.outputs[0].dim(-1), rows = node.outputs[0].size() / n;
  return {[n, rows, row](const Args& args) {
            parallelFor(rows, 2048 / n, [&](int64_t begin, int64_t end) {
              for (int64_t r = begin; r < end; r++) row(args, r * n, n);
            });
          },
          0};
}

}  // namespace

Bound bindSoftmax(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return overRows(node, [](const Args& args, int64_t at, int64_t n) {
      const T* x = args.in[0].as<T>() + at;
      T* y = args.out[0].as<T>() + at;
      const T most = largest(x, n);
      T total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t i = 0; i < n; i++) {
        y[i] = vec::exp(x[i] - most);
        total += y[i];
      }
      const T scale = 1 / total;
#pragma omp simd
      for (int64_t i = 0; i < n; i++) y[i] *= scale;
    });
  });
}

// dx = y (dy - sum(y dy)).
Bound bindSoftmaxGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return overRows(node, [](const Args& args, int64_t at, int64_t n) {
      const T* y = args.in[0].as<T>() + at;
      const T* dy = args.in[1].as<T>() + at;
      T* dx = args.out[0].as<T>() + at;
      T dot = 0;
#pragma omp simd reduction(+ : dot)
      for (int64_t i = 0; i < n; i++) dot += y[i] * dy[i];
#pragma omp simd
      for (int64_t i = 0; i < n; i++) dx[i] = y[i] * (dy[i] - dot);
    });
  });
}

Bound bindLogSoftmax(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return overRows(node, [](const Args& args, int64_t at, int64_t n) {
      const T* x = args.in[0].as<T>() + at;
      T* y = args.out[0].as<T>() + at;
      const T most = largest(x, n);
      T total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t i = 0; i < n; i++) total += vec::exp(x[i] - most);
      const T log = std::log(total);
      // Subtracted one after the other: `most` may be large, and x - most is exact near it.
#pragma omp simd
      for (int64_t i = 0; i < n; i++) y[i] = x[i] - most - log;
    });
  });
}

// dx = dy - exp(y) sum(dy).
Bound bindLogSoftmaxGrad(const NodeSpec& node) {
  return onFloat(node.outputs[0].dtype, node, [&](auto tag) {
    using T = decltype(tag);
    return overRows(node, [](const Args& args, int64_t at, int64_t n) {
      const T* y = args.in[0].as<T>() + at;
      const T* dy = args.in[1].as<T>() + at;
      T* dx = args.out[0].as<T>() + at;
      T total = 0;
#pragma omp simd reduction(+ : total)
      for (int64_t i = 0; i < n; i++) total += dy[i];
#pragma omp simd
      for (int64_t i = 0; i < n; i++) dx[i] = dy[i] - vec::exp(y[i]) * total;
    });
  });
}

}  // namespace refl::REFL_ISA
