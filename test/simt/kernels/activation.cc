// Activations and their gradients against float64.
#include "activation/activation.h"

#include <cmath>
#include <memory>

#include "harness.h"

using namespace harness;
using namespace refl::cuda;
using Values = std::vector<double>;

namespace {

double cdf(double x) { return 0.5 * std::erfc(-x * std::sqrt(0.5)); }
double pdf(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2 * std::acos(-1.0)); }
double logistic(double x) { return 1 / (1 + std::exp(-x)); }
double slope(double x, double k) { return logistic(k * x) * (1 + k * x * (1 - logistic(k * x))); }

template <class T>
double exact(Silu<T>, double x, double) {
  return x * logistic(x);
}
template <class T>
double exact(SiluGrad<T>, double x, double dy) {
  return dy * slope(x, 1);
}
template <class T>
double exact(Gelu<T>, double x, double) {
  return x * cdf(x);
}
template <class T>
double exact(GeluGrad<T>, double x, double dy) {
  return dy * (cdf(x) + x * pdf(x));
}
template <class T>
double exact(QuickGelu<T>, double x, double) {
  return x * logistic(1.702 * x);
}
template <class T>
double exact(QuickGeluGrad<T>, double x, double dy) {
  return dy * slope(x, 1.702);
}

/** `each`: the error of an element relative to itself, where nothing cancels. */
template <class T>
void expect(const Values& actual, const Values& wanted, double each, const char* what) {
  expectRounded<T>(actual, wanted, 1e-5, 2, what);
  const double unit = std::is_same_v<T, float> ? each : std::is_same_v<T, bf16> ? 0x1.03p-8 : 0x1.03p-11;
  const double least = std::is_same_v<T, f16> ? 0x1p-24 : 1e-35;
  for (size_t i = 0; i < wanted.size(); ++i)
    if (std::abs(actual[i] - wanted[i]) > unit * std::abs(wanted[i]) + least)
      fail("%s: element %zu is %.9g and should be %.9g", what, i, actual[i], wanted[i]);
}

/** From where gelu vanishes to where it is x, and what lies near 0. */
Values spanning(size_t count, uint64_t seed) {
  Values all = uniform(count, -8, 8, seed);
  const double first[] = {0, -0.0, 1e-3, -1e-3, -12, 12, -88, 88};
  for (size_t i = 0; i < 8 && i < count; ++i) all[count - 1 - i] = first[i];
  return all;
}

template <class Op, class T>
void single(size_t count) {
  const Input<T> x(spanning(count, 91));
  Input<T> dy(uniform(count, -2, 2, 92));
  Inputs<T, Op::kInputs> in = {};
  in.at[0] = x.data();
  if constexpr (Op::kInputs == 2) in.at[1] = dy.data();
  const Values xs = x.values(), ds = dy.values();
  Values wanted(count);
  for (size_t i = 0; i < count; ++i) wanted[i] = exact(Op(), xs[i], ds[i]);
  Output<T> y(count);
  check(map(Op(), in, y.data(), static_cast<unsigned>(count), nullptr));
  // The slopes cross zero, where only the error beside their terms is small.
  if constexpr (Op::kInputs == 1) return expect<T>(y.values(), wanted, 1e-5, "y");
  expectRounded<T>(y.values(), wanted, 1e-5, 2, "dx");
}

template <class T>
void gated(unsigned rows, unsigned width) {
  const Input<T> x(spanning(size_t{2} * rows * width, 93)), dy(uniform(size_t{rows} * width, -1, 1, 94));
  Output<T> y(size_t{rows} * width), dx(size_t{2} * rows * width);
  check(geglu(x.data(), y.data(), rows, width, nullptr));
  check(gegluGrad(x.data(), dy.data(), dx.data(), rows, width, nullptr));
  const Values xs = x.values(), ds = dy.values();
  Values wanted, slopes(xs.size());
  for (unsigned r = 0; r < rows; ++r)
    for (unsigned i = 0; i < width; ++i) {
      const size_t at = size_t{2} * r * width + i;
      const double a = xs[at], b = xs[at + width], d = ds[size_t{r} * width + i];
      wanted.push_back(a * b * cdf(b));
      slopes[at] = d * b * cdf(b);
      slopes[at + width] = d * a * (cdf(b) + b * pdf(b));
    }
  expect<T>(y.values(), wanted, 1e-5, "y");
  expectRounded<T>(dx.values(), slopes, 1e-5, 2, "dx");
}

/** What lies beyond all numbers. */
template <class T>
void limits() {
  const Input<T> x({NAN, INFINITY, 3e4});
  Output<T> y(3);
  Inputs<T, 1> in = {};
  in.at[0] = x.data();
  const auto see = [&](const char* what) {
    const Values got = y.values(), read = x.values();
    if (!std::isnan(got[0]) || !std::isinf(got[1]) || got[2] != read[2])
      fail("%s: %g %g %g", what, got[0], got[1], got[2]);
  };
  check(map(Silu<T>(), in, y.data(), 3, nullptr));
  see("silu");
  check(map(Gelu<T>(), in, y.data(), 3, nullptr));
  see("gelu");
  check(map(QuickGelu<T>(), in, y.data(), 3, nullptr));
  see("quickGelu");
}

template <class T>
void add(const std::string& type) {
  for (const size_t count : {size_t{1}, size_t{111}, size_t{256} * simt::kPack<T> + 3}) {
    const std::string rest = ", " + std::to_string(count);
    addCase(type + " silu" + rest, [=] { single<Silu<T>, T>(count); });
    addCase(type + " siluGrad" + rest, [=] { single<SiluGrad<T>, T>(count); });
    addCase(type + " gelu" + rest, [=] { single<Gelu<T>, T>(count); });
    addCase(type + " geluGrad" + rest, [=] { single<GeluGrad<T>, T>(count); });
    addCase(type + " quickGelu" + rest, [=] { single<QuickGelu<T>, T>(count); });
    addCase(type + " quickGeluGrad" + rest, [=] { single<QuickGeluGrad<T>, T>(count); });
  }
  addCase(type + " limits", limits<T>);
  const std::pair<unsigned, unsigned> sizes[] = {{1, 1}, {5, 19}, {6, 65}, {1, 8}, {3, 24}, {77, 40}};
  for (const auto& [rows, width] : sizes)
    addCase(type + " geglu, " + std::to_string(rows) + " x " + std::to_string(width),
            [r = rows, w = width] { gated<T>(r, w); });
}

const bool added = [] {
  add<float>("f32");
  add<bf16>("bf16");
  add<f16>("f16");
  return true;
}();

}  // namespace
