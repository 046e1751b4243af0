// Matrix products in float32 and of operands rounded to tf32, against float64: all layouts and tiles, split depths,
// gaps between rows, misaligned pointers.
#include <cmath>

#include "epilogue.h"
#include "gemm/gemm.h"
#include "harness.h"
#include "rounded.h"

using namespace harness;
using refl::cuda::GemmShape;

namespace {

struct Extras {
  int gap = 0;  // unused elements after each row and each matrix
  size_t skip = 0;
  bool bias = false, oneB = false;
  double low = -1;
  Finishing finishing = {};
};

GemmShape shapeOf(const char* layout, int batch, int m, int n, int k, const Extras& more) {
  const std::string turned = layout;
  GemmShape s = {batch, m, n, k, turned[0] == 'T', turned[1] == 'T', 0, 0, 0, 0, 0, 0};
  s.lda = (s.transposeA ? m : k) + more.gap;
  s.ldb = (s.transposeB ? k : n) + more.gap;
  s.ldc = n + more.gap;
  s.strideA = static_cast<int64_t>(s.lda) * (s.transposeA ? k : m) + more.gap;
  s.strideB = more.oneB ? 0 : static_cast<int64_t>(s.ldb) * (s.transposeB ? n : k) + more.gap;
  s.strideC = static_cast<int64_t>(s.ldc) * m + more.gap;
  return s;
}

void compare(bool tf32, const char* layout, int batch, int m, int n, int k, const Extras& more) {
  GemmShape s = shapeOf(layout, batch, m, n, k, more);
  s.tf32 = tf32;
  const auto stored = [&](int64_t stride, int64_t ld, int rows) {
    return static_cast<size_t>(stride) * (batch - 1) + static_cast<size_t>(rows == 0 ? 0 : ld * rows);
  };
  // No element is there beyond the last row: what a kernel reads of it, the canaries or AddressSanitizer see.
  const Input<float> a(uniform(stored(s.strideA, s.lda, s.transposeA ? k : m), more.low, 1, 61), more.skip);
  const Input<float> b(uniform(stored(s.strideB, s.ldb, s.transposeB ? n : k), more.low, 1, 62), more.skip);
  const Input<float> bias(uniform(n, -1, 1, 63));
  const Input<float> c(std::vector<double>(stored(s.strideC, s.ldc, m), NAN), more.skip);
  const Finisher<float> finisher(more.finishing, batch * m, n, more.skip);
  const Input<float> scratch(std::vector<double>(refl::cuda::gemmScratch<float>(s) / sizeof(float), NAN));
  check(refl::cuda::gemm<float>(s, a.data(), b.data(), more.bias ? bias.data() : nullptr, c.data(),
                                reinterpret_cast<std::byte*>(scratch.data()), nullptr, finisher.epilogue()));
  const std::vector<double> left = multiplied(a, tf32), right = multiplied(b, tf32), result = c.values();
  std::vector<double> actual, exact;
  std::vector<bool> written(result.size());
  for (int i = 0; i < batch; ++i)
    for (int y = 0; y < m; ++y)
      for (int x = 0; x < n; ++x) {
        double sum = more.bias ? bias.values()[x] : 0;
        for (int d = 0; d < k; ++d)
          sum += left[i * s.strideA + (s.transposeA ? static_cast<size_t>(d) * s.lda + y : y * s.lda + d)] *
                 right[i * s.strideB + (s.transposeB ? static_cast<size_t>(x) * s.ldb + d : d * s.ldb + x)];
        const size_t at = i * s.strideC + static_cast<size_t>(y) * s.ldc + x;
        exact.push_back(finisher.of(sum, static_cast<size_t>(i) * m + y, x));
        actual.push_back(result[at]);
        written[at] = true;
      }
  expectClose(actual, exact, 1e-5, "c");
  for (size_t i = 0; i < result.size(); ++i)
    if (!written[i] && !std::isnan(result[i])) fail("wrote between the rows, at %zu", i);
}

void addCases(bool tf32, const std::string& prefix) {
  for (const char* layout : {"NN", "NT", "TN", "TT"}) {
    const auto add = [&](const char* name, int batch, int m, int n, int k, const Extras& more = {}) {
      addCase(prefix + layout + ", " + name, [=] { compare(tf32, layout, batch, m, n, k, more); });
    };
    add("one element", 1, 1, 1, 1);
    add("small tiles", 2, 70, 66, 37, {0, 0, true});
    add("small tiles, rows of 16 bytes", 2, 68, 72, 36, {0, 0, true});
    add("one b for all", 3, 13, 35, 9, {0, 0, true, true});
    add("a tall tile", 1, 259, 5, 21, {0, 0, true});
    add("a tall tile, rows of 16 bytes", 2, 260, 8, 20, {4});
    add("a wide tile", 1, 3, 301, 19, {0, 0, true});
    add("a wide tile, rows of 16 bytes", 2, 4, 260, 20, {4});
    add("large tiles", 17, 193, 65, 5, {0, 0, true});
    add("large tiles, rows of 16 bytes", 17, 196, 68, 4);
    add("whole large tiles", 34, 128, 128, 16);
    add("a split depth", 2, 33, 18, 619, {0, 0, true});
    add("a split depth, rows of 16 bytes, gaps", 2, 20, 36, 620, {4, 0, true});
    add("gaps", 2, 9, 11, 7, {3});
    add("misaligned", 1, 20, 24, 40, {0, 1, true});
    add("misaligned, a split depth", 1, 20, 24, 640, {0, 1});
    add("no depth", 2, 5, 7, 0, {0, 0, true});
  }
  const struct {
    const char* name;
    int batch, m, n, k;
    Extras more;
  } finished[] = {
      {"small tiles", 3, 35, 68, 20, {0, 0, true}},
      {"odd columns", 3, 35, 21, 21, {3, 0, true}},
      {"a tall tile", 7, 105, 8, 20, {}},
      {"a wide tile", 3, 7, 260, 20, {4, 0, true}},
      {"large tiles", 17, 196, 68, 4, {}},
      {"a split depth", 3, 35, 20, 620, {4, 0, true}},
      {"misaligned, a split depth", 1, 21, 22, 640, {0, 1}},
  };
  int number = 0;
  for (const auto& it : finished) {
    const std::vector<Finishing> all = finishings(7, it.batch * it.m);
    for (size_t i = 0; i + 1 < all.size(); ++i) {
      // Every step on the smallest, one sequence of steps on each of the others.
      if (number++ > 4 && i != 1) continue;
      Extras more = it.more;
      more.finishing = all[i];
      addCase(prefix + "finished " + std::to_string(i) + ", " + it.name,
              [=, p = it] { compare(tf32, i % 2 ? "NT" : "TN", p.batch, p.m, p.n, p.k, more); });
    }
  }
  // Sums of one sign, whose rounding errors are largest: of one chain, of several.
  addCase(prefix + "NT, a long chain", [=] { compare(tf32, "NT", 40, 50, 60, 1100, {0, 0, false, true, 0}); });
  addCase(prefix + "NT, a depth of 9000", [=] { compare(tf32, "NT", 1, 5, 9, 9000, {0, 0, true, false, 0}); });
}

const bool added = [] {
  addCases(false, "");
  addCases(true, "tf32, ");
  return true;
}();

}  // namespace
