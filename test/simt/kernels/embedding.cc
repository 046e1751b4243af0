// Row lookup and its adjoint: repeated, unused and stray indices, rows of whole vectors and not.
#include "embedding/embedding.h"

#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

template <class T>
void lookup(unsigned rows, unsigned width, const Values& list) {
  const auto count = static_cast<unsigned>(list.size());
  const Input<T> table(uniform(size_t{rows} * width, -1, 1, 11));
  const Input<int32_t> indices(list);
  Output<T> y(size_t{count} * width);
  check(embedding(table.data(), rows, width, indices.data(), count, y.data(), nullptr));
  const Values from = table.values(), to = y.values();
  for (size_t i = 0; i < to.size(); ++i) {
    const double row = list[i / width];
    const bool stray = row < 0 || row >= rows;
    const double wanted = stray ? NAN : from[static_cast<size_t>(row) * width + i % width];
    if (to[i] != wanted && !(stray && std::isnan(to[i]))) fail("y[%zu] is %g and should be %g", i, to[i], wanted);
  }
}

template <class T>
void adjoint(unsigned rows, unsigned width, const Values& list) {
  const auto count = static_cast<unsigned>(list.size());
  const Input<T> dy(uniform(size_t{count} * width, -1, 1, 12));
  const Input<int32_t> indices(list);
  Output<T> dtable(size_t{rows} * width);
  check(embeddingGrad(indices.data(), count, dy.data(), dtable.data(), rows, width, nullptr));
  const Values from = dy.values();
  Values wanted(dtable.size()), naive(dtable.size());
  for (size_t i = 0; i < from.size(); ++i) {
    const double row = list[i / width];
    if (row < 0 || row >= rows) continue;
    const size_t to = static_cast<size_t>(row) * width + i % width;
    wanted[to] += from[i];
    naive[to] = rounded<T>(naive[to] + from[i]);
  }
  if (sizeof(T) == 4) return expectClose(dtable.values(), wanted, 1e-6, "dtable");
  expectNoWorse(dtable.values(), wanted, naive, 3, "dtable");
}

template <class T>
void add(const std::string& type) {
  const Values some = {0, 10, 4, 4, 4, 0, 7}, stray = {3, -1, 11, 0, 2147483647, -2147483648.0, 10};
  Values many;
  for (int i = 0; i < 77; ++i) many.push_back(i * 7 % 11);
  for (const unsigned width : {1u, 8u, 19u, 24u, 256u}) {
    const std::string rest = ", rows of " + std::to_string(width);
    for (const auto& [name, list] : {std::pair{" some", some}, std::pair{" stray", stray}, std::pair{" many", many}}) {
      addCase(type + name + rest, [=, list = list] { lookup<T>(11, width, list); });
      addCase(type + name + " adjoint" + rest, [=, list = list] { adjoint<T>(11, width, list); });
    }
  }
  addCase(type + " adjoint of nothing", [] { adjoint<T>(3, 5, {}); });
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  return true;
}();

}  // namespace
