// Hopper's products against float64: both tiles, all layouts, rests of tiles and of the sum, batches, rows apart.
#include "gemm/gemm_sm90.h"

#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;

namespace {

struct Product {
  int m, n, k, batch = 1;
  bool transposeA = false, transposeB = false, bias = false;
  int extra = 0;        // elements between rows, of all three
  bool shared = false;  // one b for all products
};

template <class T>
void compare(const Product& p, int columns) {
  const int rowsA = p.transposeA ? p.k : p.m, rowsB = p.transposeB ? p.n : p.k;
  GemmShape s = {p.batch, p.m, p.n, p.k, p.transposeA, p.transposeB, 0, 0, p.n + p.extra, 0, 0, 0};
  s.lda = (p.transposeA ? p.m : p.k) + p.extra;
  s.ldb = (p.transposeB ? p.k : p.n) + p.extra;
  s.strideA = static_cast<int64_t>(rowsA) * s.lda;
  s.strideB = p.shared ? 0 : static_cast<int64_t>(rowsB) * s.ldb;
  s.strideC = static_cast<int64_t>(p.m) * s.ldc;
  if (!gemmSm90Fits(s)) fail("does not fit");
  // What lies between rows is never read: it is NaN.
  const auto matrix = [&](int count, int rows, int ld, uint64_t seed) {
    std::vector<double> values = uniform(static_cast<size_t>(count) * rows * ld, -1, 1, seed);
    for (size_t i = 0; i < values.size(); ++i)
      if (static_cast<int>(i % ld) >= ld - p.extra) values[i] = NAN;
    return values;
  };
  const Input<T> a(matrix(p.batch, rowsA, s.lda, 61)), b(matrix(p.shared ? 1 : p.batch, rowsB, s.ldb, 62));
  const Input<T> bias(uniform(p.n, -1, 1, 63));
  const Input<T> c(std::vector<double>(static_cast<size_t>(p.batch) * s.strideC, NAN));
  check(gemmSm90<T>(s, columns, a.data(), b.data(), p.bias ? bias.data() : nullptr, c.data(), nullptr));

  const std::vector<double> x = a.values(), y = b.values(), z = bias.values(), found = c.values();
  std::vector<double> actual, exact, naive;
  for (int i = 0; i < p.batch; ++i)
    for (int row = 0; row < p.m; ++row)
      for (int column = 0; column < s.ldc; ++column) {
        const double got = found[i * s.strideC + static_cast<size_t>(row) * s.ldc + column];
        if (column >= p.n) {
          if (!std::isnan(got)) fail("row %d: element %d of %d was written", row, column, p.n);
          continue;
        }
        double sum = p.bias ? z[column] : 0;
        for (int k = 0; k < p.k; ++k) {
          const size_t atA = p.transposeA ? static_cast<size_t>(k) * s.lda + row : static_cast<size_t>(row) * s.lda + k;
          const size_t atB =
              p.transposeB ? static_cast<size_t>(column) * s.ldb + k : static_cast<size_t>(k) * s.ldb + column;
          sum += x[i * s.strideA + atA] * y[i * s.strideB + atB];
        }
        actual.push_back(got);
        exact.push_back(sum);
        naive.push_back(rounded<T>(sum));
      }
  expectNoWorse(actual, exact, naive, 2, "c");
}

void add(const std::string& name, const Product& p) {
  for (const int columns : {256, 128}) {
    const std::string rest = name + ", tiles of " + std::to_string(columns);
    addCase("bf16, " + rest, [=] { compare<bf16>(p, columns); });
    addCase("f16, " + rest, [=] { compare<f16>(p, columns); });
  }
}

const bool added = [] {
  allowShared(227 * 1024);
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const std::string layout = std::string(ta ? "a" : "") + (tb ? "b" : "") + (ta || tb ? " transposed" : "plain");
      add("several tiles, " + layout, {136, 264, 200, 1, ta, tb, true});
      add("rows apart, " + layout, {24, 40, 56, 2, ta, tb, false, 8});
    }
  // More steps than twice the stages.
  add("a long sum", {64, 32, 64 * 13 + 8, 1, false, true, true});
  add("one step", {8, 8, 8, 1, false, true});
  add("one b for all", {72, 24, 72, 3, false, true, true, 0, true});
  add("more row tiles than a band", {128 * 9 + 8, 264, 8, 1, false, true});
  addCase("what does not fit", [] {
    const GemmShape good = {1, 8, 8, 8, false, true, 8, 8, 8, 0, 0, 0};
    GemmShape odd = good, none = good;
    odd.n = 9;
    none.k = 0;
    if (!gemmSm90Fits(good) || gemmSm90Fits(odd) || gemmSm90Fits(none)) fail("a wrong answer");
    if (gemmSm90Columns({1, 4096, 4096, 64, false, true, 64, 64, 4096, 0, 0, 0}) != 256) fail("narrow tiles");
    if (gemmSm90Columns({1, 128, 1280, 64, false, true, 64, 64, 1280, 0, 0, 0}) != 128) fail("wide tiles");
  });
  return true;
}();

}  // namespace
