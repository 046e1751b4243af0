// Products of bf16 and f16 on tensor cores against float64: every tile and layout, wide and narrow rows, divided sums.
#include "gemm/gemm_mma.h"

#include <algorithm>
#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;

namespace {

struct Product {
  int m, n, k, batch = 1;
  bool transposeA = false, transposeB = false, bias = false;
  int extra = 0;        // elements between rows, of all three
  size_t skip = 0;      // elements by which all three are misaligned
  bool shared = false;  // one b for all products
};

template <class T>
void compare(const Product& p, const MmaPlan* plan) {
  const int rowsA = p.transposeA ? p.k : p.m, rowsB = p.transposeB ? p.n : p.k;
  GemmShape s = {p.batch, p.m, p.n, p.k, p.transposeA, p.transposeB, 0, 0, p.n + p.extra, 0, 0, 0};
  s.lda = (p.transposeA ? p.m : p.k) + p.extra;
  s.ldb = (p.transposeB ? p.k : p.n) + p.extra;
  s.strideA = static_cast<int64_t>(rowsA) * s.lda;
  s.strideB = p.shared ? 0 : static_cast<int64_t>(rowsB) * s.ldb;
  s.strideC = static_cast<int64_t>(p.m) * s.ldc;
  // What lies between rows is never read: it is NaN.
  const auto matrix = [&](int count, int rows, int ld, uint64_t seed) {
    std::vector<double> values = uniform(static_cast<size_t>(count) * rows * ld, -1, 1, seed);
    for (size_t i = 0; i < values.size(); ++i)
      if (static_cast<int>(i % ld) >= ld - p.extra) values[i] = NAN;
    return values;
  };
  const Input<T> a(matrix(p.batch, rowsA, s.lda, 61), p.skip),
      b(matrix(p.shared ? 1 : p.batch, rowsB, s.ldb, 62), p.skip);
  const Input<T> bias(uniform(p.n, -1, 1, 63));
  const size_t size = static_cast<size_t>(p.batch) * s.strideC;
  // With rows apart, what lies between them is to stay as it is.
  const Input<T> c(std::vector<double>(size, NAN), p.skip);
  const size_t bytes = plan ? partialBytes(mmaSizeOf(s), plan->splits) : gemmScratch<T>(s);
  const Input<float> scratch(std::vector<double>(bytes / sizeof(float), NAN));
  std::byte* room = reinterpret_cast<std::byte*>(scratch.data());
  const T* added = p.bias ? bias.data() : nullptr;
  check(plan ? gemmMma<T>(s, *plan, a.data(), b.data(), added, c.data(), room, nullptr)
             : gemm<T>(s, a.data(), b.data(), added, c.data(), room, nullptr));

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
        if (!std::isfinite(got)) fail("row %d, column %d: %g", row, column, got);
        double sum = p.bias ? z[column] : 0;
        for (int k = 0; k < p.k; ++k)
          sum += x[i * s.strideA +
                   (p.transposeA ? static_cast<size_t>(k) * s.lda + row : static_cast<size_t>(row) * s.lda + k)] *
                 y[i * s.strideB +
                   (p.transposeB ? static_cast<size_t>(column) * s.ldb + k : static_cast<size_t>(k) * s.ldb + column)];
        actual.push_back(got);
        exact.push_back(sum);
        naive.push_back(rounded<T>(sum));
      }
  expectNoWorse(actual, exact, naive, 2, "c");
}

void add(const std::string& name, const Product& p, const MmaPlan* plan = nullptr) {
  const MmaPlan copy = plan ? *plan : MmaPlan{};
  const bool given = plan;
  addCase("bf16, " + name, [=] { compare<bf16>(p, given ? &copy : nullptr); });
  addCase("f16, " + name, [=] { compare<f16>(p, given ? &copy : nullptr); });
}

const bool added = [] {
  const struct {
    const char* name;
    MmaTile tile;
  } tiles[] = {{"128 x 128", MmaTile::large}, {"128 x 64", MmaTile::middle}, {"64 x 64", MmaTile::small}};
  for (const bool ta : {false, true})
    for (const bool tb : {false, true}) {
      const std::string layout = std::string(ta ? "a" : "") + (tb ? "b" : "") + (ta || tb ? " transposed" : "plain");
      for (const auto& [name, tile] : tiles)
        for (const int splits : {1, 3}) {
          const MmaPlan plan = {tile, splits};
          Product p = {136, 72, 200, 1, ta, tb, splits == 3};
          add(std::string(name) + ", " + layout + (splits > 1 ? ", 3 parts" : ""), p, &plan);
        }
      const MmaPlan one = {MmaTile::large, 1};
      add("odd sizes, " + layout, {67, 65, 45, 2, ta, tb, true}, &one);
      add("rows of two elements' alignment, " + layout, {30, 34, 46, 1, ta, tb}, &one);
      add("rows of four elements' alignment, " + layout, {68, 12, 36, 1, ta, tb, true}, &one);
      add("rows apart, " + layout, {24, 40, 56, 3, ta, tb, false, 8}, &one);
      add("rows apart by 3, " + layout, {21, 37, 53, 1, ta, tb, false, 3}, &one);
      add("a single element, " + layout, {1, 1, 1, 1, ta, tb, true});
    }
  const MmaPlan two = {MmaTile::small, 2};
  add("misaligned", {40, 48, 64, 1, false, true, true, 0, 1}, &two);
  add("one b for all, in two parts", {9, 21, 100, 3, false, true, true, 0, 0, true}, &two);
  add("more parts than steps", {9, 24, 40, 1, false, true, true}, &two);
  const MmaPlan many = {MmaTile::small, 5};
  add("parts without a step", {9, 24, 7 * 32, 1, false, true, true}, &many);
  add("rows apart, in parts", {24, 36, 72, 3, false, false, true, 8}, &two);
  add("rows apart by 3, in parts", {24, 37, 72, 3, false, false, true, 3}, &two);
  add("no sum", {5, 9, 0, 2, false, false, true});
  add("more row tiles than a group", {64 * 17 + 1, 72, 8, 1, false, true}, nullptr);
  add("of a chosen plan", {77, 40, 1024, 1, false, true, true});
  return true;
}();

}  // namespace
