// Reductions against float64: short rows, long ones, columns, tiles and their rests, parts, both vector widths; ties
// and NaN.
#include "reduce/reduce.h"

#include <algorithm>
#include <cmath>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

size_t sizeOf(const Middle& s) { return size_t{s.outer} * s.count * s.inner; }

/** Calls visit(result, place along the middle, element) in the order of the elements. */
template <class Fn>
void each(const Middle& s, Fn&& visit) {
  for (size_t i = 0; i < sizeOf(s); ++i) visit(i / s.inner / s.count * s.inner + i % s.inner, i / s.inner % s.count, i);
}

/** All passes that a result takes. */
template <class From, class To>
Values reduced(Reduction op, const Middle& s, const From* x) {
  const unsigned parts = reduceParts(s);
  const size_t results = size_t{s.outer} * parts * s.inner;
  if (parts == 1) {
    Output<To> y(results);
    check(reduce(op, s, x, y.data(), nullptr));
    return y.values();
  }
  Output<float> between(results);
  check(reduce(op, s, x, between.data(), nullptr));
  return reduced<float, To>(op, {s.outer, parts, s.inner}, between.data());
}

template <class T>
void sums(const Middle& s) {
  const Input<T> x(uniform(sizeOf(s), -1, 2, 81));
  const Values xs = x.values();
  Values wanted(size_t{s.outer} * s.inner), naive(wanted.size());
  each(s, [&](size_t result, size_t, size_t i) {
    wanted[result] += xs[i];
    naive[result] = rounded<T>(naive[result] + xs[i]);
  });
  const Values y = reduced<T, T>(Reduction::sum, s, x.data());
  if (sizeof(T) == 4) return expectClose(y, wanted, 3e-6, "y");
  expectNoWorse(y, wanted, naive, 2, "y");
  expectClose(reduced<T, float>(Reduction::sum, s, x.data()), wanted, 3e-6, "y, float");
}

/** Every seventh result has a NaN; there are ties and infinities. */
template <class T>
void largest(const Middle& s) {
  Values values = uniform(sizeOf(s), -9, 9, 82);
  each(s, [&](size_t result, size_t place, size_t i) {
    values[i] = std::floor(values[i]);
    if (result % 3 == 2) values[i] = -std::abs(values[i]) - 1;
    if (result % 5 == 3) values[i] = -INFINITY;
    if (result % 7 == 6 && place >= s.count / 2) values[i] = NAN;
    if (result % 4 == 1 && place % 2) values[i] = -0.0;
  });
  const Input<T> x(values);
  const Values xs = x.values(), y = reduced<T, T>(Reduction::max, s, x.data());
  Output<int32_t> where(size_t{s.outer} * s.inner);
  check(argmax(s, x.data(), where.data(), nullptr));
  Values most(where.size(), -INFINITY), place(where.size());
  each(s, [&](size_t result, size_t at, size_t i) {
    const bool wins = xs[i] > most[result] || (std::isnan(xs[i]) && !std::isnan(most[result]));
    if (wins) most[result] = xs[i];
    if (wins) place[result] = static_cast<double>(at);
  });
  for (size_t i = 0; i < most.size(); ++i) {
    if (y[i] != most[i] && !(std::isnan(y[i]) && std::isnan(most[i])))
      fail("y[%zu] is %g and should be %g", i, y[i], most[i]);
    if (where[i] != place[i]) fail("the largest of %zu is at %g and not at %d", i, place[i], where[i]);
  }
}

template <class T>
void add(const std::string& type) {
  const Middle shapes[] = {{1, 1, 1},     {9, 37, 1},    {17, 64, 1},   {2, 1024, 1}, {3, 1025, 1},
                           {1, 20011, 1}, {1, 16384, 1}, {1, 20008, 1}, {3, 2048, 1}, {5, 7, 2},
                           {2, 31, 3},    {1, 700, 3},   {2, 19, 19},   {3, 11, 40},  {1, 513, 64},
                           {2, 9, 1031},  {1, 260, 72},  {1, 5, 264},   {2, 1, 5},    {1, 3, 1024}};
  for (const Middle& shape : shapes) {
    const std::string rest =
        std::to_string(shape.outer) + " x " + std::to_string(shape.count) + " x " + std::to_string(shape.inner);
    addCase(type + " sum, " + rest, [=] { sums<T>(shape); });
    addCase(type + " largest, " + rest, [=] { largest<T>(shape); });
  }
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  addCase("sum of nothing", [] {
    const Input<float> x(Values{});
    Output<float> y(6);
    check(reduce(Reduction::sum, {2, 0, 3}, x.data(), y.data(), nullptr));
    expectClose(y.values(), Values(6), 0, "y");
  });
  return true;
}();

}  // namespace
