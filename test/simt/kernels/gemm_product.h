// One product for the tests of 16-bit matrix products: all that a shape can ask for, against float64.
#pragma once
#include <cmath>

#include "epilogue.h"
#include "gemm/gemm.h"
#include "harness.h"

using namespace harness;
using refl::cuda::GemmShape;

struct Product {
  int m, n, k, batch = 1;
  bool transposeA = false, transposeB = false, bias = false;
  int extra = 0;        // elements between rows, of all three
  size_t skip = 0;      // elements by which all three are misaligned
  bool shared = false;  // one b for all products
  Finishing finishing = {};
  int apart = 0;       // elements between one matrix of the batch and the next, of all three
  bool whole = false;  // whole numbers up to 20, whose sums are exact: c is the naive loop's to the bit
};

/** run(shape, a, b, bias or null, c, epilogue) makes c, whose error is at most twice that of a loop in T. */
template <class T, class Run>
void compareProduct(const Product& p, Run&& run) {
  const int rowsA = p.transposeA ? p.k : p.m, rowsB = p.transposeB ? p.n : p.k;
  GemmShape s = {p.batch, p.m, p.n, p.k, p.transposeA, p.transposeB, 0, 0, p.n + p.extra, 0, 0, 0};
  s.lda = (p.transposeA ? p.m : p.k) + p.extra;
  s.ldb = (p.transposeB ? p.k : p.n) + p.extra;
  s.strideA = static_cast<int64_t>(rowsA) * s.lda + p.apart;
  s.strideB = p.shared ? 0 : static_cast<int64_t>(rowsB) * s.ldb + p.apart;
  s.strideC = static_cast<int64_t>(p.m) * s.ldc + p.apart;
  // What lies between rows and matrices is never read: it is NaN.
  const auto matrix = [&](int count, int rows, int ld, uint64_t seed) {
    const size_t each = static_cast<size_t>(rows) * ld + p.apart;
    std::vector<double> values = uniform(count * each, -1, 1, seed);
    for (size_t i = 0; i < values.size(); ++i) {
      const size_t at = i % each;
      if (p.whole) values[i] = std::round(values[i] * 20);
      if (at >= each - p.apart || static_cast<int>(at % ld) >= ld - p.extra) values[i] = NAN;
    }
    return values;
  };
  const Input<T> a(matrix(p.batch, rowsA, s.lda, 61), p.skip),
      b(matrix(p.shared ? 1 : p.batch, rowsB, s.ldb, 62), p.skip);
  const Input<T> bias(uniform(p.n, -1, 1, 63));
  const size_t size = static_cast<size_t>(p.batch) * s.strideC;
  // With rows apart, what lies between them is to stay as it is.
  const bool toFloat = p.finishing.toFloat;
  const Input<T> narrow(std::vector<double>(toFloat ? 0 : size, NAN), p.skip);
  const Input<float> wide(std::vector<double>(toFloat ? size : 0, NAN), p.skip);
  const Finisher<T> finisher(p.finishing, p.batch * p.m, p.n, p.skip);
  run(s, a.data(), b.data(), p.bias ? bias.data() : nullptr,
      toFloat ? reinterpret_cast<T*>(wide.data()) : narrow.data(), finisher.epilogue());

  const std::vector<double> x = a.values(), y = b.values(), z = bias.values(),
                            found = toFloat ? wide.values() : narrow.values();
  std::vector<double> actual, exact, naive;
  for (int i = 0; i < p.batch; ++i) {
    for (int at = 1; at <= p.apart; ++at)
      if (!std::isnan(found[(i + 1) * s.strideC - at])) fail("something was written behind matrix %d", i);
    for (int row = 0; row < p.m; ++row)
      for (int column = 0; column < s.ldc; ++column) {
        const double got = found[i * s.strideC + static_cast<size_t>(row) * s.ldc + column];
        if (column >= p.n) {
          if (!std::isnan(got)) fail("row %d: element %d of %d was written", row, column, p.n);
          continue;
        }
        if (!std::isfinite(got) || rounded<T>(got) != got)
          fail("row %d, column %d: %.9g, which T does not hold", row, column, got);
        double sum = p.bias ? z[column] : 0;
        for (int k = 0; k < p.k; ++k)
          sum += x[i * s.strideA +
                   (p.transposeA ? static_cast<size_t>(k) * s.lda + row : static_cast<size_t>(row) * s.lda + k)] *
                 y[i * s.strideB +
                   (p.transposeB ? static_cast<size_t>(column) * s.ldb + k : static_cast<size_t>(k) * s.ldb + column)];
        const size_t place = static_cast<size_t>(i) * p.m + row;
        actual.push_back(got);
        exact.push_back(finisher.of(sum, place, column));
        naive.push_back(finisher.naively(sum, place, column));
      }
  }
  if (!p.whole) return expectNoWorse(actual, exact, naive, 2, "c");
  for (size_t i = 0; i < actual.size(); ++i)
    if (actual[i] != naive[i]) fail("element %zu is %.9g and should be %.9g", i, actual[i], naive[i]);
}
