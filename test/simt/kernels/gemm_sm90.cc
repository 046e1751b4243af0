// Hopper's products against float64: both tiles, all layouts, rests of tiles and of the sum, batches, rows apart.
#include "gemm/gemm_sm90.h"

#include "gemm_product.h"

using namespace refl::cuda;

namespace {

template <class T>
void compare(const Product& p, int columns) {
  compareProduct<T>(p, [&](const GemmShape& s, const T* a, const T* b, const T* bias, T* c, const Epilogue& epilogue) {
    if (!gemmSm90Fits(s)) fail("does not fit");
    check(gemmSm90<T>(s, columns, a, b, bias, c, nullptr, epilogue));
  });
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
  add("one b for all", {72, 24, 72, 3, false, true, true, 0, 0, true});
  add("more row tiles than a band", {128 * 9 + 8, 264, 8, 1, false, true});
  int number = 0;
  for (const Finishing& finishing : finishings(7, 105)) {
    const std::string name = "finished " + std::to_string(++number);
    add(name, {35, 264, 72, 3, false, true, number % 2 == 0, 0, 0, false, finishing});
    add(name + ", two rows of tiles", {210, 40, 72, 1, false, true, true, 8, 0, false, finishing});
  }
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
