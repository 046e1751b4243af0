// Products of bf16 and f16 on tensor cores against float64: every tile and layout, wide and narrow rows, divided sums.
#include "gemm/gemm_mma.h"

#include "gemm_product.h"

using namespace refl::cuda;

namespace {

template <class T>
void compare(const Product& p, const MmaPlan* plan) {
  compareProduct<T>(p, [&](const GemmShape& s, const T* a, const T* b, const T* bias, T* c, const Epilogue& epilogue) {
    const size_t bytes = plan ? partialBytes(mmaSizeOf(s), plan->splits) : gemmScratch<T>(s);
    const Input<float> scratch(std::vector<double>(bytes / sizeof(float), NAN));
    std::byte* room = reinterpret_cast<std::byte*>(scratch.data());
    check(plan ? gemmMma<T>(s, *plan, a, b, bias, c, room, nullptr, epilogue)
               : gemm<T>(s, a, b, bias, c, room, nullptr, epilogue));
  });
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
  const MmaPlan large = {MmaTile::large, 1};
  for (const int apart : {1, 4}) {
    const std::string name = "matrices apart by " + std::to_string(apart);
    Product p = {24, 40, 72, 3, false, true, true};
    p.apart = apart;
    add(name, p, &large);
    add(name + ", in parts", p, &two);
    p.finishing = {{{Code::kAdd, 1, 1}}};
    add(name + ", finished", p, &large);
  }
  Product steps = {35, 72, 40, 1, false, true};
  steps.whole = true;
  steps.finishing = {{{Code::kAdd, 1, 1}, {Code::kMul, 7}, {Code::kAffine, 0, 0.75, -0.25}}};
  add("rounded between steps", steps);
  add("rounded between steps, in parts", steps, &two);
  add("no sum", {5, 9, 0, 2, false, false, true});
  add("more row tiles than a group", {64 * 17 + 1, 72, 8, 1, false, true}, nullptr);
  add("of a chosen plan", {77, 40, 1024, 1, false, true, true});
  // 3 products of 35 rows, of which 7 share a row of an operand.
  int number = 0;
  for (const Finishing& finishing : finishings(7, 105)) {
    const std::string name = "finished " + std::to_string(++number);
    for (const auto& [tileName, tile] : tiles) {
      const MmaPlan whole = {tile, 1};
      Product p = {35, 136, 72, 3, false, true, number % 2 == 0, 0, 0, false, finishing};
      if (number == 1) p = {130, 72, 40, 1, false, true, false, 0, 0, false, finishing};
      add(name + ", " + tileName, p, &whole);
    }
    add(name + ", in parts", {35, 36, 72, 3, false, true, true, 4, 0, false, finishing}, &two);
    add(name + ", rows apart by 3", {35, 36, 72, 3, false, true, true, 3, 0, false, finishing}, &two);
    add(name + ", odd columns", {35, 21, 40, 3, false, false, true, 3, 0, false, finishing});
    add(name + ", odd columns in parts", {35, 21, 72, 3, false, false, true, 0, 1, false, finishing}, &two);
  }
  return true;
}();

}  // namespace
